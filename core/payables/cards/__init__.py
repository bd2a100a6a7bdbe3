"""Payments by card: into a wallet, and of codes and links."""
