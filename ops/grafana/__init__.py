"""The dashboards for Grafana, and the files by which it finds them."""
