"""The schema and every statement, read as package data."""
