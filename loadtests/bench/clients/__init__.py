"""What sends requests in a measurement and receives events: programs of our own, wrk and pgbench."""
