"""PayPal: its transmissions, and how they are verified."""
