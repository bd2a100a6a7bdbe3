"""`python -m core.settings` prints `.env.example`."""

import sys

from core.settings.example import example

sys.stdout.write(example())
