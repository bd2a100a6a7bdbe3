"""Payment providers, one file each: calls to them, their events, and what both mean."""
