"""The strength of a secret, estimated from its text alone: length says nothing about 32 equal letters."""

import itertools
import math
from collections import Counter

# The words of examples and of careless hands; a secret that begins with one is one of them, made longer.
PLACEHOLDERS = frozenset(
    {"change_me_in_prod", "change_me", "changeme", "dev_secret", "secret", "password", "admin", "test", "dev"}
)
_BEGINNINGS = ("change_me", "change-me", "changeme", "replace_me", "replace-me", "your_", "your-", "<", "xxx")


def placeholder(secret: str) -> bool:
    """Whether a secret is a word that stands for one."""
    word = secret.strip().lower()
    return word in PLACEHOLDERS or word.startswith(_BEGINNINGS)


def bits(secret: str) -> float:
    """Return the most bits that the text can be said to hold.

    It is the least of three estimates: by how often each character comes, by how often each step from one to the next
    comes (a row of letters or digits has one step), and by the part that a repeated text repeats. A random text of 32
    hex digits has about 115.
    """
    secret = secret.removeprefix("whsec_")
    if not secret:
        return 0.0
    period = next(n for n in range(1, len(secret) + 1) if secret == (secret[:n] * len(secret))[: len(secret)])
    steps = [ord(after) - ord(before) for before, after in itertools.pairwise(secret)]
    return min(_shannon(secret), _shannon(secret[:period]), _shannon(steps))


def _shannon(signs: "str | list[int]") -> float:
    total = len(signs)
    return sum(count * math.log2(total / count) for count in Counter(signs).values())
