"""Uses of secrets that can be rotated, counted by age, so that an operator sees when an earlier one is not needed.

Every setting of that kind is a list: the first secret is current, signs and seals; all of them count. The names in the
metric are those of the settings, and `SOURCE` for the secrets of registered sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.metrics import Count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CURRENT: Final = "current"
PREVIOUS: Final = "previous"
SOURCE: Final = "SOURCE"

ADMIN_TOKEN: Final = "ADMIN_TOKEN"  # noqa: S105 - the names of settings
CLOUDPAYMENTS: Final = "CLOUDPAYMENTS_API_SECRET"
INTERNAL_API: Final = "INTERNAL_API_SECRET"
INTERNAL_WEBHOOK: Final = "INTERNAL_WEBHOOK_SECRET"
JWT: Final = "JWT_SECRET"
JWT_RSA: Final = "JWT_RS_PRIVATE_PEM"
OTP_STORAGE: Final = "OTP_STORAGE_SECRET"
SECRETS_KEYS: Final = "SECRETS_KEYS"
STRIPE: Final = "STRIPE_SIGNING_SECRET"

COUNTED: Final = (
    ADMIN_TOKEN, CLOUDPAYMENTS, INTERNAL_API, INTERNAL_WEBHOOK, JWT, JWT_RSA, OTP_STORAGE, SECRETS_KEYS, SOURCE, STRIPE,
)  # fmt: skip

_USES = Count(
    "secret_used_total",
    "Uses of secrets by age: current or previous",
    ("secret", "age"),
    start=[(name, age) for name in COUNTED for age in (CURRENT, PREVIOUS)],
)


def used(secret: str, place: int) -> None:
    """Count a use of the secret at a place of its list; the one at 0 is current."""
    _USES.add(secret, PREVIOUS if place else CURRENT)


def matching(name: str, secrets: Iterable[str], is_right: Callable[[bytes], bool]) -> bytes | None:
    """Return the first secret for which `is_right` says so, and count its use; None for none.

    All are asked, so that the time tells neither how many there are before the right one nor which it is. Empty ones
    are no secrets.
    """
    found: tuple[int, bytes] | None = None
    for place, secret in enumerate(secrets):
        key = secret.encode("utf-8", "surrogateescape")
        if key and is_right(key) and found is None:
            found = place, key
    if found is None:
        return None
    used(name, found[0])
    return found[1]
