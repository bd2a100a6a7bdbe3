"""The ways to sign in: a code sent to the phone, a password, a passkey, and the fixed accounts of development."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import asyncpg
import structlog

from core import metrics
from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal
from core.identity import sessions, usernames
from core.identity.codes import new_session, wrong_code
from core.identity.memory import limited
from core.identity.passwords import is_weak
from core.phones import may_get_messages, normalized

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from core.database import Connection
    from core.identity.identity import Identity
    from core.identity.sessions import SignedIn
    from core.wallets.users import User

_log = structlog.get_logger(__name__)
_sql = queries(__name__)

LOGIN_SECONDS: Final = 900


class Client(NamedTuple):
    """The client that signs in: its address, its own name for itself, and whether it wants a refresh token."""

    address: str
    agent: str = ""
    refresh: bool = False


class Sent(NamedTuple):
    """A code that is on its way, or that everybody knows (development)."""

    session: str
    dev_code: str | None


class DevAccount(NamedTuple):
    """One of the fixed accounts of ENV=dev. Only the roles merchant and agent allow anything."""

    username: str
    password: str
    phone: str
    name: str
    merchant: bool = False
    agent: bool = False


DEV_ACCOUNTS: Final = (
    DevAccount("admin", "admin", "+963900000101", "Dev Admin"),
    DevAccount("superuser", "superuser", "+963900000102", "Dev Superuser"),
    DevAccount("user1", "user1", "+963900000103", "Dev User 1"),
    DevAccount("user2", "user2", "+963900000104", "Dev User 2"),
    DevAccount("merchant", "merchant", "+963900000105", "Dev Merchant", merchant=True),
    DevAccount("agent", "agent", "+963900000106", "Dev Agent", agent=True),
)


async def request_code(identity: Identity, phone: str, client: Client) -> Sent:
    """Send a sign-in code to `phone`, which is a plus and digits, in its one form.

    Raises Refusal `not_found` (DEV_DISABLE_OTP in dev), `invalid_phone`, `otp_limited`, `sms_failed`, `sign_in_waits`.
    """
    settings = identity.platform.settings
    if settings.env == "dev" and settings.dev_disable_otp:
        raise Refusal("not_found", "Sign-in codes are off here.")
    if identity.codes.dev:
        return Sent(new_session(), str(settings.otp_dev_code))
    if settings.otp_sms_provider != "log" and not may_get_messages(normalized(phone)):
        raise Refusal("invalid_phone", "No message can be sent to this phone.")
    phone = normalized(phone) or phone
    session, code = await identity.codes.make(phone, client.address)
    try:
        await identity.messages.send_code(phone, code, session)
    except Refusal as refusal:
        if not refusal.extra.get("maybe_sent"):
            await identity.codes.forget(phone, session)
        raise
    return Sent(session, None)


async def verify_code(
    identity: Identity,
    phone: str,
    code: str,
    session: str | None,
    name: str | None,
    client: Client,
    *,
    resets: bool | None = None,
) -> SignedIn:
    """Sign in with a code, and make the user if there is none. Without a session the phone's newest one counts.

    `resets` says whether the user's KYC and merchant state is taken back in development (None: by
    DEV_RESET_USER_STATE_ON_LOGIN).

    Raises Refusal `invalid_otp`, `otp_locked`, `sign_in_waits`.
    """
    try:
        if not identity.codes.dev:
            await identity.codes.check(phone, code, session or "", client.address)
        elif not identity.codes.is_dev_code(code):
            raise wrong_code()
    except Refusal as refusal:
        raise _counted("otp", refusal) from None
    user = await identity.platform.users.ensure(phone, name=name, actor="system:sign-in")
    # In development the code is the same for everybody, and proves nothing.
    if identity.platform.settings.env != "dev":
        await _prove_phone(identity, user)
    await _reset_in_dev(identity, user, resets=resets)
    return await _signed_in(identity, user, "otp", client)


async def register(
    identity: Identity, username: str, password: str, phone: str, name: str | None, client: Client
) -> SignedIn:
    """Make a user with a password. The phone is taken on trust, because only a sign-in code proves its owner.

    So outside development the starting credit waits for that code; else invented phones would be money.

    Raises Refusal, in this order: `invalid_username`, `username_taken`, `invalid_phone`, `phone_taken`,
    `weak_password`; `overloaded`.
    """
    platform, number = identity.platform, normalized(phone)
    prepared = usernames.prepared(username)
    if await platform.database.fetchrow(_sql.credentials_of, username, prepared) is not None:
        raise _username_taken()
    if not number:
        raise Refusal("invalid_phone", "There is no phone number in it.")
    # The platform's fees go to the wallet of this phone, which may not exist yet. Nobody gets that phone on trust.
    fees = normalized(platform.config.current.fee_wallet_phone)
    if number == fees or await platform.users.by_phone(number) is not None:
        raise _phone_taken()
    if is_weak(password, username, number, phone):
        raise Refusal("weak_password", "The password is too easy to guess.")
    hashed = await identity.passwords.hash(password)
    # The index of usernames compares them in lower case, which for letters beyond ASCII PostgreSQL may know otherwise.
    stored = username if username.isascii() and username.lower() == prepared else prepared

    async def add_credentials(connection: Connection, user_id: UUID) -> None:
        await connection.execute(_sql.set_credentials, user_id, stored, hashed)

    try:
        # User and password come in one transaction: a user of this phone who was made meanwhile stays without ours.
        user = await platform.users.create(
            number,
            name=name,
            actor="system:register",
            also=add_credentials,
            credited=platform.settings.env == "dev",
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "users_username":
            raise
        raise _username_taken() from None
    if user is None:
        raise _phone_taken()
    return await _signed_in(identity, user, "register", client)


async def log_in(identity: Identity, username: str, password: str, client: Client) -> SignedIn:
    """Sign in with a password. A wrong username takes as long as a wrong password.

    Raises Refusal `invalid_credentials`, `login_limited`, `overloaded`.
    """
    platform = identity.platform
    await _guard_guesses(identity, username, add=False)
    row = await platform.database.fetchrow(_sql.credentials_of, *usernames.forms(username))
    stored: str | None = None if row is None else row["password_hash"]
    if not await identity.passwords.verify(stored, password) or row is None or stored is None:
        await _guard_guesses(identity, username, add=True)
        raise _counted("password", Refusal("invalid_credentials", "The username or the password is wrong."))
    user = await platform.users.by_id(row["id"])
    if user is None:
        raise LookupError("a password without a user")
    if identity.passwords.is_outdated(stored, password):
        renewed = await identity.passwords.hash(password)
        await platform.database.execute(_sql.renew_hash, user.id, stored, renewed)
    return await _signed_in(identity, user, "password", client)


async def dev_log_in(
    identity: Identity, username: str, password: str, client: Client, *, resets: bool | None = None
) -> SignedIn:
    """Sign in to one of the fixed accounts of development; `resets` as in `verify_code`.

    Raises Refusal `not_found`, `dev_credentials_invalid`.
    """
    platform = identity.platform
    if platform.settings.env != "dev":
        raise Refusal("not_found", "This is for development only.")
    account = next((found for found in DEV_ACCOUNTS if found.username == username.strip().lower()), None)
    if account is None or not hmac.compare_digest(account.password.encode(), password.encode()):
        raise _counted("dev", Refusal("dev_credentials_invalid", "The username or the password is wrong."))
    user = await platform.users.ensure(account.phone, name=account.name, actor="system:dev-login")
    await _reset_in_dev(identity, user, resets=resets)
    if account.merchant or account.agent:
        async with platform.database.transaction() as connection:
            if await connection.fetchrow(_sql.set_dev_role, user.id, account.merchant, account.agent):
                data = {"merchant": account.merchant, "agent": account.agent}
                await record(connection, audited("auth.dev_role", "system:dev-login", data, user_id=user.id))
    return await _signed_in(identity, user, "dev", client)


async def passkey_log_in(identity: Identity, given: Mapping[str, Any], client: Client) -> SignedIn:
    """Sign in with a passkey. Raises Refusal as `core.identity.passkeys.Passkeys.check`."""
    try:
        user_id = await identity.passkeys.check(given)
    except Refusal as refusal:
        raise _counted("passkey", refusal) from refusal
    user = await identity.platform.users.by_id(user_id)
    if user is None:
        raise LookupError("a passkey without a user")
    return await _signed_in(identity, user, "passkey", client)


async def _signed_in(identity: Identity, user: User, method: str, client: Client) -> SignedIn:
    platform = identity.platform
    return await sessions.sign_in(
        platform.database,
        identity.tokens,
        platform.settings,
        user,
        method=method,
        client=client.agent,
        refresh=client.refresh,
    )


async def _guard_guesses(identity: Identity, username: str, *, add: bool) -> None:
    """Count a wrong password, or only look. Without Redis the limits of addresses alone hold."""
    most = identity.platform.settings.login_max_failures
    name = hashlib.sha256(usernames.forms(username)[1].lower().encode()).hexdigest()[:32]
    try:
        wait = await identity.memory.bound(f"guesses:{name}", most, LOGIN_SECONDS, add=add)
    except Refusal:
        return
    if wait > 0 and not add:
        raise limited("login_limited", "Too many wrong passwords for this username.", wait)


async def _prove_phone(identity: Identity, user: User) -> None:
    """End all that a stranger who registered this phone may have prepared, because the first code proves the owner.

    Password, name, every sign-in, passkeys, merchant keys, endpoints, mandates, subscriptions and blocks end, and all
    that is open to be paid to the user.
    """
    async with identity.platform.database.transaction() as connection:
        row = await connection.fetchrow(_sql.prove_phone, user.id)
        if row is None or not row["registered"]:
            return
        await sessions.end_all_within(connection, user, identity.platform.settings)
        await connection.execute(_sql.forget_unproven, user.id)
        await record(connection, audited("auth.phone_proven", by_user(user.id), {}, user_id=user.id))
    # The credit comes apart, since a frozen wallet, which refuses it, must not keep the stranger signed in.
    try:
        await identity.platform.users.credit_late(user)
    except Refusal as refusal:
        _log.warning("sign_in.not_credited", user_id=str(user.id), code=refusal.code)


async def _reset_in_dev(identity: Identity, user: User, *, resets: bool | None) -> None:
    """Take back the KYC and merchant state, as the tests of the contract's clients expect (development)."""
    platform = identity.platform
    if resets is None:
        resets = platform.settings.dev_reset_user_state_on_login
    if platform.settings.env != "dev" or not resets:
        return
    async with platform.database.transaction() as connection:
        if await connection.fetchrow(_sql.reset_dev_state, user.id):
            await record(connection, audited("auth.dev_reset", "system:sign-in", {}, user_id=user.id))


def _counted(method: str, refusal: Refusal) -> Refusal:
    metrics.SIGN_INS.add(method, "refused")
    return refusal


def _username_taken() -> Refusal:
    return Refusal("username_taken", "This username is taken.")


def _phone_taken() -> Refusal:
    return Refusal("phone_taken", "There is an account with this phone.")
