"""Usernames: one form for all ways of typing one (RFC 8265, UsernameCaseMapped), and the older ones beside it."""

from __future__ import annotations

from typing import Final

import precis_i18n

from core.errors import Refusal

# The wallet contract's bounds (section 1.1), which hold for the prepared form, too.
LEAST_CHARACTERS: Final = 3
MOST_CHARACTERS: Final = 64

_PROFILE = precis_i18n.get_profile("UsernameCaseMapped")


def prepared(username: str) -> str:
    """Return the one form of a username: lower case, NFC, no wide letters; blanks only between its parts.

    Raises Refusal `invalid_username` for controls, marks that nobody sees, symbols, and directions that mix.

    >>> prepared("Ann"), prepared(" ANN  Smith ")
    ('ann', 'ann smith')
    """
    if len(username) > MOST_CHARACTERS:
        raise _invalid()
    try:
        # RFC 8265, section 3.1: a username is made of parts, and the profile is that of a part.
        found = " ".join(_PROFILE.enforce(part) for part in username.split(" ") if part)
    except UnicodeError:
        raise _invalid() from None
    if not LEAST_CHARACTERS <= len(found) <= MOST_CHARACTERS:
        raise _invalid()
    return found


def forms(username: str) -> tuple[str, str]:
    """Return the forms under which a username may be stored: as typed, from before `prepared`, and prepared."""
    try:
        return username, prepared(username)
    except Refusal:
        return username, username


def _invalid() -> Refusal:
    return Refusal(
        "invalid_username", "A username has 3 to 64 letters, digits and signs, and no marks that nobody sees."
    )
