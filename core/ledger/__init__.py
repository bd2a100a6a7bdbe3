"""The ledger: accounts, transfers, holds, reversals, the feed and its seal, and the proof that they agree."""
