"""Tables in partitions by time: made ahead, taken off when old, archived, brought back."""
