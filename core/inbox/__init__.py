"""What providers tell us: verified, stored once, applied once."""
