"""The surfaces: HTTP routes that parse, call the core and answer. No SQL and no rule of the domain."""
