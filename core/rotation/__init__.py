"""The rotation of secrets: two or more are active at once, and a metric tells when the earlier ones are unused."""
