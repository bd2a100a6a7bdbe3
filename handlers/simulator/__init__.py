"""The simulator's server: a payment provider that charges nobody and fails as it is told to."""
