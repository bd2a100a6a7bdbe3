"""Load on a running service: the Locust suites with their budgets, and the side-by-side benchmark."""
