"""The standby beside the primary database."""
