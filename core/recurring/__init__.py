"""Payments on a schedule: mandates that pay due invoices, and subscriptions."""
