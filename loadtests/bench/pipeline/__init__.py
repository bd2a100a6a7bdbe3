"""The whole way of an event, from its arrival over the posting to the receiver: database empty or grown."""
