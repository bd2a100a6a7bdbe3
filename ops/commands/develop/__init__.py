"""Commands for the person who builds on the service: a till, signed events, a demo, load and faults."""
