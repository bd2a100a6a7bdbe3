"""Kaspi Pay for shops: their configs, the order of a payment, its status, its refund, and the audit log."""
