"""Payments under faults: a provider that loses answers and events, tills that are killed, and the accounts afterwards.

The provider is the simulator, which nobody kills: its book is the truth that everything is held against.
"""
