"""Payables and how they are paid: one operation for every kind, its fees, limits and risk, and what undoes it."""
