"""Faults under load: signed events stream through a real service while its parts are killed, paused and wiped.

Everything is judged from outside: what was answered over HTTP, what stands in the tables, what the receiver wrote down.
"""
