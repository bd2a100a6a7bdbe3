"""Signing in: codes, passwords and passkeys, and the sign-ins that they make."""
