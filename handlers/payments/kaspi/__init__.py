"""The surface of Kaspi Pay for shops: its contract on the common port, and alone on KASPI_PORT."""
