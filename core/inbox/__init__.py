"""The inbox: events of providers and sources, each verified, stored once and applied once."""
