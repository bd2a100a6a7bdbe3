"""The surface of merchants' orders: `/api/v1/payments`."""
