"""The wire to receivers: names, connections, and HTTP as it goes over them."""
