"""Payments on a schedule: mandates that pay invoices, subscriptions that are charged."""
