"""Rotations: the old and the new secret both count while both are set, then the old one is refused.

ops/secrets/ROTATION.md has a section for each of them.
"""

import base64
import functools
import hashlib
import hmac
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import asyncpg
import pytest
from aiohttp.test_utils import make_mocked_request
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from core import metrics
from core.access.internal_hmac import Credentials, check, signature_of
from core.database import open_database
from core.errors import Refusal, Unavailable
from core.identity import sessions
from core.identity.codes import Codes
from core.identity.memory import Memory
from core.identity.tokens import Tokens
from core.ids import new_uuid
from core.inbox import cloudpayments, stripe
from core.platform import open_platform
from core.redis import open_redis
from core.rotation import uses
from core.service import open_service
from core.settings import Settings
from core.vault import Vault
from core.wallets import merchant_keys
from core.wallets.users import User
from handlers.http.admin_token import Administrators
from handlers.payments.orders.surface import _require_signed
from tests.conftest import Administer

pytestmark = pytest.mark.shared

BODY = b'{"id":"evt_1","type":"x"}'
Works = Callable[[Settings, Settings], Awaitable[object]]


class Rotation(NamedTuple):
    """One secret: its setting, its name in the metric, and what a service of `now` does with a work of `one`."""

    attribute: str
    counted: str
    works: Works
    previous: str = ""
    make: Callable[[], str] = partial(secrets.token_hex, 16)


def first(settings: Settings, attribute: str) -> str:
    found = getattr(settings, attribute)
    return str(found[0] if isinstance(found, tuple) else found)


async def admin(one: Settings, now: Settings) -> None:
    token = first(one, "admin_token")
    Administrators(now).check(make_mocked_request("GET", "/admin", headers={"X-Admin-Token": token}))


async def admin_digest(one: Settings, now: Settings) -> None:
    hashed = now.model_copy(
        update={
            "admin_token": (),
            "admin_token_sha256": tuple(
                hashlib.sha256(token.encode()).hexdigest() for token in now.admin_token
            ),
        }
    )
    await admin(one, hashed)


async def stripe_event(one: Settings, now: Settings) -> None:
    moment = int(time.time())
    signed = hmac.new(first(one, "stripe_signing_secrets").encode(), b"%d." % moment + BODY, "sha256")
    verifier = stripe.StripeVerifier(now.stripe_signing_secrets, 300)
    await verifier.verify(BODY, {stripe.HEADER: f"t={moment},v1={signed.hexdigest()}"}, moment)


async def cloudpayments_notice(one: Settings, now: Settings) -> None:
    body = b"TransactionId=1"
    digest = hmac.digest(first(one, "cloudpayments_api_secrets").encode(), body, "sha256")
    signature = base64.b64encode(digest).decode()
    cloudpayments.check_signature(body, {"content-hmac": signature}, now.cloudpayments_api_secrets)


async def internal_call(one: Settings, now: Settings) -> None:
    moment = datetime.now(UTC)
    ts = str(int(moment.timestamp()))
    sign = signature_of(first(one, "internal_api_secret"), ts, {"a": 1})
    assert check(now, Credentials(sign, ts, None), [{"a": 1}], now=moment) is not None


async def internal_plain(one: Settings, now: Settings) -> None:
    plain = now.model_copy(update={"internal_require_hmac": False})
    credentials = Credentials(None, None, first(one, "internal_api_secret"))
    assert check(plain, credentials, [{}], now=datetime.now(UTC)) is None


async def order_webhook(one: Settings, now: Settings) -> None:
    sign = hmac.new(first(one, "internal_webhook_secret").encode(), BODY, "sha256").hexdigest()
    request = make_mocked_request("POST", "/webhook", headers={"X-Internal-Signature": sign})
    _require_signed(now.internal_webhook_secret, request, BODY)


def user() -> User:
    values: dict[str, Any] = dict.fromkeys(User._fields)
    return User(**values | {"id": new_uuid(), "phone": "+963900000001"})


@functools.lru_cache(8)
def tokens_of(settings: Settings) -> Tokens:
    """The tokens of a process: to read an RSA key takes a tenth of a second."""
    return Tokens(settings)


async def token(one: Settings, now: Settings) -> None:
    tokens_of(now).read(tokens_of(one).issue(user(), None))


async def sign_in_code(one: Settings, now: Settings) -> None:
    redis = open_redis(now)
    try:
        memory = Memory(redis, secrets.token_hex(4))
        phone = f"+96390{secrets.randbelow(10**7):07}"
        session, code = await Codes(one, tokens_of(one), memory).make(phone, "127.0.0.1")
        await Codes(now, tokens_of(now), memory).check(phone, code, session, "127.0.0.1")
    finally:
        await redis.aclose()


async def sealed_text(one: Settings, now: Settings) -> None:
    assert Vault.of(now).open(Vault.of(one).seal("text", "endpoint:1"), "endpoint:1") == "text"


async def merchant_secret(one: Settings, now: Settings) -> None:
    sealed = merchant_keys.seal(one, "key", "text")
    if merchant_keys.unseal(now, "key", sealed) != "text":
        raise Refusal("gone", "no key opens it")


async def refreshed(one: Settings, now: Settings) -> None:
    """A refresh whose answer was lost is repeated at a process of the other step, and has the same successor."""
    async with open_service(now) as service, open_platform(service) as platform:
        person = await platform.users.ensure(f"+96391{secrets.randbelow(10**7):07}")
        parts = (service.database, tokens_of(one), one)
        signed = await sessions.sign_in(*parts, person, method="otp", client="test", refresh=True)
        renewed = await sessions.renew(*parts, platform.users, str(signed.refresh_token))
        again = await sessions.renew(
            service.database, tokens_of(now), now, platform.users, str(signed.refresh_token)
        )
        assert again.refresh_token == renewed.refresh_token


@functools.cache
def rsa_keys() -> Iterator[str]:
    """A few keys, since each takes a second to make."""
    return itertools.cycle([_rsa_key() for _ in range(2)])


def rsa_key() -> str:
    return next(rsa_keys())


def _rsa_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


ROTATIONS = {
    "ADMIN_TOKEN": Rotation("admin_token", uses.ADMIN_TOKEN, admin),
    "ADMIN_TOKEN_SHA256": Rotation("admin_token", uses.ADMIN_TOKEN, admin_digest),
    "STRIPE_SIGNING_SECRET": Rotation("stripe_signing_secrets", uses.STRIPE, stripe_event),
    "CLOUDPAYMENTS_API_SECRET": Rotation(
        "cloudpayments_api_secrets", uses.CLOUDPAYMENTS, cloudpayments_notice
    ),
    "INTERNAL_API_SECRET": Rotation("internal_api_secret", uses.INTERNAL_API, internal_call),
    "INTERNAL_API_SECRET, plain": Rotation("internal_api_secret", uses.INTERNAL_API, internal_plain),
    "INTERNAL_WEBHOOK_SECRET": Rotation("internal_webhook_secret", uses.INTERNAL_WEBHOOK, order_webhook),
    "JWT_SECRET": Rotation("jwt_secret", uses.JWT, token, "jwt_secret_previous"),
    "JWT_RS_PRIVATE_PEM": Rotation("jwt_rs_private_pem", uses.JWT_RSA, token, make=rsa_key),
    "OTP_STORAGE_SECRET": Rotation("otp_storage_secret", uses.OTP_STORAGE, sign_in_code),
    "OTP_STORAGE_SECRET unset": Rotation("jwt_secret", uses.OTP_STORAGE, sign_in_code, "jwt_secret_previous"),
    "SECRETS_KEYS": Rotation("secrets_keys", uses.SECRETS_KEYS, sealed_text),
    "OTP_STORAGE_SECRET unset, RS256": Rotation(
        "jwt_rs_private_pem", uses.OTP_STORAGE, sign_in_code, make=rsa_key
    ),
    "refresh tokens": Rotation("jwt_secret", "", refreshed, "jwt_secret_previous"),
    "MERCHANT_SECRET_KEYS unset, RS256": Rotation("jwt_rs_private_pem", "", merchant_secret, make=rsa_key),
    "MERCHANT_SECRET_KEYS": Rotation("merchant_secret_keys", "", merchant_secret),
    "MERCHANT_SECRET_KEYS unset": Rotation("jwt_secret", "", merchant_secret, "jwt_secret_previous"),
}


@pytest.mark.parametrize("name", ROTATIONS)
async def test_old_and_new_both_work_and_then_the_old_one_is_refused(name: str, settings: Settings) -> None:
    rotation = ROTATIONS[name]
    old, new = rotation.make(), rotation.make()
    base = {"jwt_alg": "RS256"} if rotation.attribute == "jwt_rs_private_pem" else {}
    separator = "\n" if base else ","

    def having(*active: str) -> Settings:
        given = {rotation.attribute: separator.join(active)}
        if rotation.previous:
            given = {rotation.attribute: active[0], rotation.previous: ",".join(active[1:])}
        return Settings.model_validate(settings.model_dump() | base | given)

    before, both, after = having(old), having(new, old), having(new)
    # While the processes are replaced one by one, those of before and those of after the step work side by side; where
    # the secret signs or seals, the new one is known to all before the first process signs with it.
    known = having(old, new)
    counted = previous_uses(rotation.counted)
    await rotation.works(before, before)
    await rotation.works(before, known)
    await rotation.works(known, before)
    await rotation.works(both, known)
    assert previous_uses(rotation.counted) > counted or not rotation.counted
    await rotation.works(known, both)
    await rotation.works(both, both)
    await rotation.works(after, both)
    await rotation.works(both, after)
    counted = previous_uses(rotation.counted)
    await rotation.works(after, after)
    assert (
        previous_uses(rotation.counted) == counted
    )  # nobody needs the old one any more, and the metric says so
    with pytest.raises((Refusal, Unavailable)):
        await rotation.works(before, after)


def previous_uses(secret: str) -> float:
    line = f'secret_used_total{{age="previous",secret="{secret}"}} '
    found = [text for text in metrics.render().decode().splitlines() if text.startswith(line)]
    return float(found[0].removeprefix(line)) if found else -1.0


async def test_every_counted_secret_is_there_from_the_start_with_0() -> None:
    assert {name for name in uses.COUNTED if previous_uses(name) < 0} == set()


async def test_postgresql_by_two_logins_and_by_one_password(
    settings: Settings, administer: Administer
) -> None:
    """Pools that are open go on, whatever becomes of a password; a new process needs the new one."""
    names = [f"app_{secrets.token_hex(4)}" for _ in range(2)]
    place = str(settings.database_url).partition("@")[2]

    def as_login(name: str, password: str) -> Settings:
        return settings.model_copy(update={"database_url": f"postgresql://{name}:{password}@{place}"})

    async def asks(given: Settings) -> None:
        database = await open_database(given, size=1)
        await database.ping()
        await database.close()

    for name in names:
        await administer(f"CREATE ROLE {name} LOGIN PASSWORD 'first'; GRANT tallystick_serving TO {name}")
    pool = await open_database(as_login(names[0], "first"), size=2)
    try:
        # Two logins, both active; the old one is closed when no session of it is left.
        await asks(as_login(names[1], "first"))
        await pool.ping()
        # One login whose password changes: what is open goes on, what comes later needs the new one.
        await administer(f"ALTER ROLE {names[0]} PASSWORD 'second'")
        await pool.ping()
        await asks(as_login(names[0], "second"))
        with pytest.raises((Unavailable, asyncpg.InvalidPasswordError)):
            await asks(as_login(names[0], "first"))
        await administer(f"ALTER ROLE {names[0]} NOLOGIN")
        with pytest.raises((Unavailable, asyncpg.InvalidAuthorizationSpecificationError)):
            await asks(as_login(names[0], "second"))
    finally:
        await pool.close()
        for name in names:
            await administer(f"DROP ROLE {name}")


async def test_redis_knows_two_passwords_of_one_user(settings: Settings) -> None:
    owner = open_redis(settings)
    name = f"app{secrets.token_hex(4)}"
    place = str(settings.redis_url).partition("@")[2]

    async def acl(*words: str) -> None:
        await owner.execute_command("ACL", *words)  # type: ignore[no-untyped-call]

    async def asks(password: str) -> bool:
        redis = open_redis(settings.model_copy(update={"redis_url": f"redis://{name}:{password}@{place}"}))
        try:
            return bool(await redis.ping())
        except Exception:  # noqa: BLE001 - any refusal
            return False
        finally:
            await redis.aclose()

    try:
        await acl("SETUSER", name, "on", ">old", "~*", "&*", "+@all")
        assert await asks("old")
        await acl("SETUSER", name, ">new")
        assert (await asks("old"), await asks("new")) == (True, True)
        await acl("SETUSER", name, "<old")
        assert (await asks("old"), await asks("new")) == (False, True)
    finally:
        await acl("DELUSER", name)
        await owner.aclose()
