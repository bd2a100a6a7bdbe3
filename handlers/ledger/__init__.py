"""The ledger surface: accounts, transfers, holds and the feed of `/v1`."""
