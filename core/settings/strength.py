"""The strength of a secret, estimated from its text alone: length says nothing about 32 equal letters.

Words, rows of a keyboard and runs of the alphabet are taken out first, since a guesser tries those before letters.
"""

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache

# The words of examples and of careless hands.
PLACEHOLDERS = frozenset(
    {"change_me_in_prod", "change_me", "changeme", "dev_secret", "secret", "password", "admin", "test", "dev"}
)
_BEGINNINGS = ("change_me", "change-me", "changeme", "replace_me", "replace-me", "your_", "your-", "<", "xxx")
# Sentences that say themselves that the text is no secret, wherever they stand.
_SAYINGS = (
    "changeme", "changethis", "changeit", "changeinprod", "replaceme", "replacethis", "donotuse", "dontuse",
    "notforprod", "notsecret", "insertyour",
)  # fmt: skip
# Words of five letters and more are found anywhere: a random text of 32 letters holds one in some ten thousand.
_LONG = frozenset(
    """
    access account admin administrator airdrop apple apikey authentication authorization backend backup banana bearer
    books cashier change changed changeit changeme chicken client cloud codec company config correct credential custom
    database debug default demo deploy derived develop developer development docker dragon dummy encryption
    environment example extremely filler football forbidden foobar forever frontend generate generated gateway hello
    horse hunter hushhush iloveyou insecure insert internal invoice javascript kubernetes ledger letmein local
    localhost login lorem ipsum manager master merchant minimum monkey money mysecret nobody password passphrase passwd
    payment payments paypal placeholder please portal postgres princess private prod production project provider
    public python qwerty random really redis replace root sample secret secrets secure security server service session
    shadow shared signature signing something staging staple string stripe strong summer sunshine super superman
    superuser supersecret sysadmin system tallystick temporary tester testing these thing token trustno ultra
    unknown update username users value wallet wallets webhook welcome whatever winter workspace wrong
    """.split()  # noqa: SIM905 - a list of quoted words is harder to read
)
# Shorter ones count where they stand alone. Words that hex digits can spell are left out.
_SHORT = frozenset(
    """
    key keys now not use this that the for and with your yours our dont only must long prod test
    tests dev demo root user pass hmac auth jwt api app pay sms otp http code sign very some text here temp todo fixme
    foo bar baz bank cash env uat new old live stage top yes from real safe word team shop
    site web data none null more than least char chars bits bytes sql rsa sha aes hex
    """.split()  # noqa: SIM905 - a list of quoted words is harder to read
)
_ROWS = (
    "qwertyuiop[]", "asdfghjkl;", "zxcvbnm,./", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p", "1q2w3e4r5t6y7u8i9o0p",
    "01234567890123456789", "abcdefghijklmnopqrstuvwxyz", "0123456789abcdef", "!@#$%^&*()",
)  # fmt: skip
_LEAST_ROW = 6
_CHUNK = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_LETTERS = re.compile(r"[a-z]+")
_WORD = re.compile("|".join(sorted(_LONG, key=lambda word: (-len(word), word))))
_LEET = str.maketrans("0134578@$!", "oleastbasi")
_BETWEEN = re.compile(r"[-_.,:;/ ]+")


def placeholder(secret: str) -> bool:
    """Whether a secret is a text that stands for one."""
    word = secret.strip().lower()
    letters = re.sub(r"[^a-z]", "", word)
    return word in PLACEHOLDERS or word.startswith(_BEGINNINGS) or any(said in letters for said in _SAYINGS)


def bits(secret: str) -> float:
    """Return the most bits that the text can be said to hold.

    It is the least of three estimates of what no guesser has in a list: by how often each character comes, by how often
    each step from one to the next comes (a row of letters or digits has one step), and by the part that a repeated text
    repeats. A random text of 32 hex digits has about 115.
    """
    secret = _unlisted(secret.removeprefix("whsec_"))
    if not secret:
        return 0.0
    period = next(n for n in range(1, len(secret) + 1) if secret == (secret[:n] * len(secret))[: len(secret)])
    steps = [ord(after) - ord(before) for before, after in itertools.pairwise(secret)]
    return min(_shannon(secret), _shannon(secret[:period]), _shannon(steps))


@cache
def common_digests() -> frozenset[str]:
    """Return the SHA-256 digests, in hex, of words in their usual spellings and with their usual endings."""
    return frozenset(hashlib.sha256(text.encode()).hexdigest() for text in _common())


def _common() -> Iterator[str]:
    endings = (
        "",
        *"0123456789",
        "01",
        "11",
        "12",
        "123",
        "1234",
        "12345",
        "123456",
        "!",
        "1!",
        "123!",
        "@123",
    )
    years = tuple(str(year) for year in range(2015, 2031))
    words = {
        "",
        *PLACEHOLDERS,
        *_LONG,
        *_SHORT,
        "qwerty",
        "abc",
        "passw0rd",
        "p@ssw0rd",
        "p@ssword",
        "admin_token",
    }
    words |= {"admin-token", "admintoken", "change-me", "adminadmin"}
    words |= {row[:size] for row in _ROWS for size in range(3, len(row) + 1)}
    words |= {row[:size][1:] for row in _ROWS for size in range(4, len(row) + 1)}
    for word in words:
        for spelled in {word, word.upper(), word.capitalize()}:
            for ending in (*endings, *years):
                yield spelled + ending
    yield from (sign * count for sign in "0123456789abcdefx" for count in range(1, 65))


def _unlisted(secret: str) -> str:
    """Return the characters that belong to no word, no row of a keyboard and no run, nor stand between those."""
    lower = secret.lower()
    if len(lower) != len(secret):
        return secret
    taken = [False] * len(secret)
    words = [match.span() for text in (lower, lower.translate(_LEET)) for match in _WORD.finditer(text)]
    words += [match.span() for match in _CHUNK.finditer(secret) if match[0].lower() in _SHORT]
    words += [match.span() for match in _LETTERS.finditer(lower) if match[0] in _SHORT]
    # One word comes by chance into a random text; several are written by a hand.
    for start, end in words if len(set(words)) > 1 else ():
        _take(taken, start, end)
    for row in (spelled for one in _ROWS for spelled in (one, one[::-1])):
        _take_rows(lower, row, taken)
    if any(taken):
        for match in _BETWEEN.finditer(lower):
            _take(taken, *match.span())
    return "".join(sign for sign, gone in zip(secret, taken, strict=True) if not gone)


def _take_rows(text: str, row: str, taken: list[bool]) -> None:
    start = 0
    while start + _LEAST_ROW <= len(text):
        end = start + _LEAST_ROW
        if text[start:end] not in row:
            start += 1
            continue
        while end < len(text) and text[start : end + 1] in row:
            end += 1
        _take(taken, start, end)
        start = end


def _take(taken: list[bool], start: int, end: int) -> None:
    taken[start:end] = [True] * (end - start)


def _shannon(signs: "str | list[int]") -> float:
    total = len(signs)
    return sum(count * math.log2(total / count) for count in Counter(signs).values())
