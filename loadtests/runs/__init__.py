"""Runs of the load suites: the service, its data, who used the processors, the verdict and the report."""
