"""Backups of the database: taken, kept for a while, listed, checked, and restored into another database."""
