"""What we tell others: written with its effect, signed, sent until it is received or given up."""
