"""Payments through a provider: creations over HTTP, and the engine alone."""
