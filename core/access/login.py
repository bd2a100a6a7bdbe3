"""The login that the service runs with: it owns nothing, and has the rights of the serving role alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import Final
from urllib.parse import unquote, urlsplit

import asyncpg

from core.database import CONNECT_TIMEOUT_SECONDS, SERVING_ROLE, queries
from core.errors import Refusal

# PostgreSQL's own number (scram_iterations).
ITERATIONS: Final = 4096
MAX_IDENTIFIER_BYTES: Final = 63

_sql = queries(__name__)


async def let_in(owner_url: str, login_url: str) -> str:
    """Make the login that `login_url` names, or give the one that is there its password; return its name.

    It becomes a member of the serving role, which the migrations have made. A repetition changes no more than the salt
    of the password. Raises Refusal `invalid_request` for an address without name and password, and for a login with
    rights of its own: the service would have them, too.
    """
    try:
        parts = urlsplit(login_url)
        name, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        name = password = ""
    if not name or len(name.encode()) > MAX_IDENTIFIER_BYTES or not password:
        raise Refusal("invalid_request", "The address of the service's login has a name and a password.")
    if not password.isascii() or not password.isprintable():
        raise Refusal("invalid_request", "The password of the service's login is plain ASCII.")
    connection = await asyncpg.connect(owner_url, timeout=CONNECT_TIMEOUT_SECONDS, statement_cache_size=0)
    try:
        async with connection.transaction():
            # Two jobs may run at once; the second finds the login of the first.
            await connection.execute(_sql.lock_login.text)
            found = await connection.fetchrow(_sql.login.text, name)
            if found is not None and found["powerful"]:
                raise Refusal(
                    "invalid_request",
                    f"{name} has more rights than the service should have. Name another login, which is made here.",
                )
            statements = await connection.fetchrow(
                _sql.login_statements.text, found is not None, name, _verifier(password), SERVING_ROLE
            )
            for statement in statements or ():
                await connection.execute(statement)
    finally:
        await connection.close()
    return name


def _verifier(password: str) -> str:
    """Return what PostgreSQL stores for a password (RFC 5803), so that the password is in no statement and no log."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_, stored_, server_ = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{salt_}${stored_}:{server_}"
