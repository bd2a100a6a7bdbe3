"""The command of the archive."""
