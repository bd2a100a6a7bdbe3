"""Sets a checkout up: the standard library only, for it runs before any package is installed."""
