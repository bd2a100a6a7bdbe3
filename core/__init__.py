"""The domain over PostgreSQL and Redis: ledger, inbox, outbox, access. Knows no HTTP server and no queue."""

__version__ = "0.1.0"
