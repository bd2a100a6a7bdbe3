"""People and their means: users, wallets, merchants, their keys, endpoints and statements."""
