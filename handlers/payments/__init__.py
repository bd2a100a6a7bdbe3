"""Surfaces of payments through providers."""
