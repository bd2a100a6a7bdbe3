"""An event on its whole way from its arrival to the receiver, in an empty database and in a grown one."""
