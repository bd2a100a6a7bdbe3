"""Outgoing events: written with their effect, signed, and sent until they are received or given up."""
