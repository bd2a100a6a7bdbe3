"""Users' tokens: JWTs after the wallet contract; ours name a sign-in, those of the service before it name none."""

from __future__ import annotations

import math
import time
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import jwt

from core.errors import Refusal
from core.identity.keys import load_keys
from core.wallets.users import seconds_ahead

if TYPE_CHECKING:
    from core.settings import Settings
    from core.wallets.users import User

# Whether a secret is long enough is said once, by the rules of prod, and not in each process's log.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)

# A process does not check a good token again until it expires, because a check takes 24 us.
MAX_REMEMBERED: Final = 10_000
MAX_TOKEN_CHARACTERS: Final = 4_096


class Claims(NamedTuple):
    """The claims of a good token: user, time of issue, and sign-in (None in tokens that name none)."""

    user_id: UUID
    issued_at: float
    expires_at: float
    session_id: UUID | None


class Tokens:
    """The tokens of one process, signed and read with the keys of the settings it started with."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.keys = load_keys(settings)
        self._known: OrderedDict[str, Claims] = OrderedDict()

    @property
    def enabled(self) -> bool:
        """Whether there is a key; without one the routes of wallets are off."""
        return bool(self.keys.keys)

    def issue(self, user: User, session_id: UUID | None, *, minutes: float | None = None) -> str:
        """Return a token of `user` that lasts `minutes` (JWT_EXPIRES_MINUTES)."""
        settings = self._settings
        now = int(time.time())
        lasts = settings.jwt_expires_minutes if minutes is None else minutes
        claims: dict[str, Any] = {
            "sub": str(user.id),
            "phone": user.phone,
            "iat": now,
            "exp": now + int(lasts * 60),
            "iss": settings.jwt_issuer,
            "aud": settings.jwt_audience,
        }
        if session_id is not None:
            claims["sid"] = str(session_id)
        key = self.keys.keys[0]
        headers = None if key.key_id is None else {"kid": key.key_id}
        return jwt.encode(claims, key.signing, algorithm=key.algorithm, headers=headers)

    def read(self, token: str) -> Claims:
        """Return the claims of a token. Raises Refusal `token_expired`, `token_invalid`, `token_issuer_invalid`."""
        known = self._known.get(token)
        if known is not None and known.expires_at > time.time():
            return known
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise Refusal("token_invalid", "The token is not one of ours.")
        settings = self._settings
        try:
            payload = self._verified(token)
            session = payload.get("sid")
            claims = Claims(
                UUID(payload["sub"]),
                _moment(payload["iat"]),
                _moment(payload["exp"]) + settings.jwt_clock_skew_secs,
                None if session is None else UUID(session),
            )
            if claims.session_id is None and claims.issued_at > time.time() + seconds_ahead(settings):
                # It would outlive the end of all sign-ins, whose time it is compared with.
                raise ValueError("issued in the future")
        except jwt.ExpiredSignatureError:
            raise Refusal("token_expired", "The token has expired. Sign in again.") from None
        except jwt.InvalidIssuerError:
            raise Refusal("token_issuer_invalid", "The token was issued by somebody else.") from None
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
            raise Refusal("token_invalid", "The token is not one of ours.") from None
        self._known[token] = claims
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return claims

    def _verified(self, token: str) -> dict[str, Any]:
        """Return the payload of a token that one of the keys has signed. Raises PyJWT's errors."""
        settings = self._settings
        header = jwt.get_unverified_header(token)
        for key in self.keys.candidates(header.get("alg"), header.get("kid")):
            try:
                # The key fixes the algorithm. The token's header chooses among the keys and nothing else.
                payload: dict[str, Any] = jwt.decode(
                    token,
                    key.verifying,
                    algorithms=[key.algorithm],
                    audience=settings.jwt_audience if settings.jwt_validate_aud else None,
                    issuer=settings.jwt_issuer if settings.jwt_validate_iss else None,
                    leeway=settings.jwt_clock_skew_secs,
                    options={
                        "require": ["exp", "iat", "sub"],
                        "verify_aud": settings.jwt_validate_aud,
                        "verify_iss": settings.jwt_validate_iss,
                        # A machine whose clock is a second behind must let in a user whom another machine let in.
                        "verify_iat": False,
                    },
                )
            except jwt.InvalidSignatureError:
                continue
            self.keys.note_use(key)
            return payload
        raise jwt.InvalidSignatureError("none of our keys has signed it")


def _moment(value: object) -> float:
    """Return a time claim in seconds. Raises TypeError, ValueError and OverflowError for one that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a time is a number")
    moment = float(value)
    if not math.isfinite(moment):
        raise ValueError("a time is finite")
    return moment


def counts(user: User, claims: Claims) -> bool:
    """Whether the sign-in of a token still counts: neither it nor all sign-ins of the user were ended.

    A token that names its sign-in lives as long as that, whatever the clocks of our machines say. A token that names
    none has a time in whole seconds, and one of the second in which all were ended counts no more.
    """
    since = user.tokens_valid_from
    if not user.live:
        return False
    if claims.session_id is not None or since is None:
        return True
    return claims.issued_at > since.timestamp()
