"""Who may call and how often: API keys, the guard in front of every request, and the address a request comes from."""
