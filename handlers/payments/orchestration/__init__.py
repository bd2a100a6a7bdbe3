"""Payments of internal services over HTTP and gRPC: both translate, and `core.payments.orchestration` does the work."""
