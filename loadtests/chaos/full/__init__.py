"""Chaos at full scale: events, transfers and payments at once, while all parts, links, the disk and the clock fail."""
