"""The surfaces of payments through providers, one folder for each contract."""
