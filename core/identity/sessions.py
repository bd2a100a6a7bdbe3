"""Sign-ins: each is a row that its tokens name, so that a person can see them, and end one or all.

A client that asks for a refresh token gets one, with a short access token in the place of the long one. It is good for
one use. A used one that comes back means that two clients have it, so the sign-in ends (RFC 9700, section 4.14.2), but
for the first seconds: an answer that was lost on its way is given again, with the same successor.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from core import ids, metrics
from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal
from core.wallets.users import seconds_ahead

if TYPE_CHECKING:
    from core.database import Connection, Database
    from core.identity.tokens import Tokens
    from core.settings import Settings
    from core.wallets.users import User, Users

_sql = queries(__name__)

DAY_SECONDS: Final = 86_400
MAX_CLIENT_CHARACTERS: Final = 200
MAX_LISTED: Final = 100
# A client that got no answer asks again within a time-out, and a thief of a token should have no more time than that.
REPEAT_SECONDS: Final = 30.0

_ID_BYTES: Final = 16
_SECRET_BYTES: Final = 16
_TOKEN_BYTES: Final = _ID_BYTES + 2 * _SECRET_BYTES
_REFRESH: Final = "tsr_"


class SignedIn(NamedTuple):
    """The tokens of a sign-in; with a refresh token also the seconds that the access token lasts."""

    access_token: str
    refresh_token: str | None = None
    expires_in: int | None = None


class Session(NamedTuple):
    """A live sign-in as its owner sees it; `client` is the client's own name for itself."""

    id: UUID
    client: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime


class _Refresh(NamedTuple):
    """The parts of a refresh token: the sign-in, the sign-in's secret, and the token's own secret."""

    session_id: UUID
    family: bytes
    own: bytes

    @property
    def text(self) -> str:
        data = self.session_id.bytes + self.family + self.own
        return _REFRESH + base64.urlsafe_b64encode(data).decode()

    @property
    def family_hash(self) -> bytes:
        return hashlib.sha256(self.family).digest()

    @property
    def own_hash(self) -> bytes:
        return hashlib.sha256(self.own).digest()

    def following(self, key: bytes) -> _Refresh:
        """Return the successor, which is always the same one, and which nobody makes without our key."""
        own = hmac.new(key, self.family + self.own, hashlib.sha256).digest()[:_SECRET_BYTES]
        return self._replace(own=own)


async def sign_in(
    database: Database,
    tokens: Tokens,
    settings: Settings,
    user: User,
    *,
    method: str,
    client: str,
    refresh: bool,
) -> SignedIn:
    """Open a sign-in of `user` and return its tokens. `client`, the client's own name, is shown to the user."""
    session_id = ids.new_uuid()
    token = _Refresh(session_id, secrets.token_bytes(_SECRET_BYTES), secrets.token_bytes(_SECRET_BYTES))
    seconds = settings.session_refresh_days * DAY_SECONDS if refresh else settings.jwt_expires_minutes * 60
    shown = "".join(character if " " <= character <= "~" else "?" for character in client)
    async with database.transaction() as connection:
        await connection.execute(
            _sql.open_session,
            session_id,
            user.id,
            shown[:MAX_CLIENT_CHARACTERS],
            float(seconds + settings.jwt_clock_skew_secs),
            token.own_hash if refresh else None,
            token.family_hash if refresh else None,
        )
        await _audit(connection, "auth.sign_in", user.id, session_id, method=method)
    metrics.SIGN_INS.add(method, "success")
    return _tokens(tokens, settings, user, session_id, token if refresh else None)


async def renew(
    database: Database, tokens: Tokens, settings: Settings, users: Users, refresh_token: str
) -> SignedIn:
    """Return new tokens for a refresh token, which is then used up; for REPEAT_SECONDS it has the same successor.

    Raises Refusal `refresh_token_invalid`.
    """
    given = _read(refresh_token)
    if given is None:
        raise _invalid()
    # A process with the tokens' secret of before may have given out the successor of that one.
    following, *earlier = [given.following(key) for key in tokens.keys.derive_all("refresh tokens")]
    async with database.transaction() as connection:
        row = await connection.fetchrow(
            _sql.rotate_refresh,
            given.session_id,
            given.family_hash,
            given.own_hash,
            following.own_hash,
            float(settings.session_refresh_days * DAY_SECONDS + settings.jwt_clock_skew_secs),
            REPEAT_SECONDS,
            [one.own_hash for one in earlier],
        )
        if row is not None and not row["live"]:
            await _audit(connection, "auth.refresh_reused", row["user_id"], given.session_id)
    user = None if row is None or not row["live"] else await users.by_id(row["user_id"])
    if row is None or user is None:
        metrics.SIGN_INS.add("refresh", "refused")
        raise _invalid()
    metrics.SIGN_INS.add("refresh", "success")
    given_out = next((one for one in earlier if one.own_hash == row["refresh_hash"]), following)
    return _tokens(tokens, settings, user, given.session_id, given_out)


async def end(database: Database, user: User, session_id: UUID) -> None:
    """End one sign-in of `user`, whose tokens then count no more. Raises Refusal `session_not_found`."""
    async with database.transaction() as connection:
        if await connection.fetchrow(_sql.end_session, session_id, user.id) is None:
            raise Refusal("session_not_found", "There is no such sign-in, or it was ended.")
        await _audit(connection, "auth.sign_out", user.id, session_id)


async def end_all_within(connection: Connection, user: User, settings: Settings) -> int:
    """End every sign-in of `user` as part of a transaction; return the number of rows that were ended."""
    # The user's row is locked first, so that two of these calls come one after the other.
    await connection.execute(_sql.end_older_tokens, user.id, seconds_ahead(settings))
    return await connection.execute(_sql.end_all_sessions, user.id)


async def end_all(database: Database, settings: Settings, user: User, *, passkeys: bool = False) -> int:
    """End every sign-in of `user`, also older tokens that name none; return the number of rows that were ended.

    With `passkeys` these are removed, too, because whoever has one of them could sign in again.
    """
    async with database.transaction() as connection:
        count = await end_all_within(connection, user, settings)
        data = {"sessions": count}
        if passkeys:
            data["passkeys"] = await connection.execute(_sql.end_passkeys, user.id)
        entry = audited("auth.sign_out_all", by_user(user.id), data, user_id=user.id)
        await record(connection, entry)
    return count


async def live_sessions(database: Database, user: User) -> list[Session]:
    """Return the newest hundred live sign-ins of `user`, newest first."""
    rows = await database.fetch(_sql.sessions_of_user, user.id, MAX_LISTED)
    return [Session(*(row[name] for name in Session._fields)) for row in rows]


def _tokens(
    tokens: Tokens, settings: Settings, user: User, session_id: UUID, refresh: _Refresh | None
) -> SignedIn:
    if refresh is None:
        return SignedIn(tokens.issue(user, session_id))
    minutes = settings.session_access_minutes
    return SignedIn(tokens.issue(user, session_id, minutes=minutes), refresh.text, minutes * 60)


def _read(text: str) -> _Refresh | None:
    try:
        data = base64.b64decode(text.removeprefix(_REFRESH).encode(), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if not text.startswith(_REFRESH) or len(data) != _TOKEN_BYTES:
        return None
    family = data[_ID_BYTES : _ID_BYTES + _SECRET_BYTES]
    return _Refresh(UUID(bytes=data[:_ID_BYTES]), family, data[_ID_BYTES + _SECRET_BYTES :])


def _invalid() -> Refusal:
    return Refusal(
        "refresh_token_invalid", "The refresh token was used, has expired, or is not ours. Sign in again."
    )


async def _audit(connection: Connection, type_: str, user_id: UUID, session_id: UUID, **data: str) -> None:
    entry = audited(type_, by_user(user_id), data, user_id=user_id, object_id=str(session_id))
    await record(connection, entry)
