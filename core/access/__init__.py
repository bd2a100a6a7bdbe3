"""Access: API keys, the guard in front of every request, and the address that a request comes from."""
