"""Providers' reports: files that tell which money has moved, and the comparison of them with payments and ledger."""
