"""Identity: users prove who they are by sign-in codes, passwords and passkeys, and get tokens for it."""
