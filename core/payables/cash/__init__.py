"""Cash: agents take it in and pay it out."""
