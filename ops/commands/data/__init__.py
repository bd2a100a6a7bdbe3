"""Commands that take files and databases of others in: providers' reports, and the services before this one."""
