"""The side-by-side benchmark: Tallystick beside the floors it is built on, in one run on one machine.

A figure alone says more about the machine than about the code. Each of ours therefore stands beside a floor measured
in the same minutes: a bare aiohttp handler, pgbench's own TPC-B, and our posting function called without HTTP.
"""
