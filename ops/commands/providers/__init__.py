"""Commands about payments through providers."""
