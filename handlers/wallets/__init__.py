"""The wallet surface: the routes of the existing wallet service, in its own bytes."""
