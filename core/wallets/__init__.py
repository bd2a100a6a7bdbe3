"""The wallet platform's people and money: users, wallets, fees, limits, and what moves between them."""
