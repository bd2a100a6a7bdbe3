"""Payments of internal services, as their contract has them: the part below HTTP and gRPC, which only translate."""
