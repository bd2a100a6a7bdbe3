"""Work that is done again, later, or by somebody else: leases, wake-ups, due windows, retries."""
