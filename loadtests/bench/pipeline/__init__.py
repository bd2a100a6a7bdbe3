"""The whole way of an event, from its arrival over the posting to the receiver, in an empty database and a grown one."""
