"""Merchants' orders: the surface of the old service for payments by link, over the one engine."""
