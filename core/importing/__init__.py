"""Importing: the databases of the five services before this one, carried over once and repeatable."""
