"""Payments through providers: intents and attempts, their states, their money, their routes and their timeline."""
