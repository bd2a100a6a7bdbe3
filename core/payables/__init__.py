"""Payables: one operation that pays every kind, with its fees, limits and risk, and refunds and expiry."""
