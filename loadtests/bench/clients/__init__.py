"""Programs that send requests in a measurement, and one that receives events: our own, wrk and pgbench."""
