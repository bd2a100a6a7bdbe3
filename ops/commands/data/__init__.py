"""Commands about the database as a whole: its backups, and what comes after a loss."""
