"""The commands of payments through providers, and of their callbacks."""
