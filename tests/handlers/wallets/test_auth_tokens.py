"""Bearer tokens: the contract's answers to bad ones, keys that rotate, and the public keys."""

import base64
import functools
import json
import time
import uuid
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from core.identity.keys import DEV_KEY_FILE
from core.identity.tokens import Tokens
from core.settings import Settings
from tests.handlers.wallets.conftest import MakePerson, Person

pytestmark = pytest.mark.shared

SECRET = "test-jwt-secret-of-32-characters"
OLD_SECRET = "old--jwt-secret-of-32-characters"


@functools.cache
def pem(_of: str) -> str:
    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
    )


@pytest.fixture
def token_settings() -> dict[str, Any]:
    """What a test sets."""
    return {}


@pytest.fixture
def settings(settings: Settings, token_settings: dict[str, Any]) -> Settings:
    return Settings.model_validate(settings.model_dump() | token_settings)


def signed(person: Person, secret: str = SECRET, **claims: Any) -> str:
    """Return a token as the old service made it, with these claims changed; None leaves one out."""
    now = int(time.time())
    whole = {
        "sub": str(person.user.id), "phone": person.phone, "iat": now, "exp": now + 60, "iss": "payments",
        "aud": "users",
    } | claims  # fmt: skip
    payload = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(payload, secret, algorithm="HS256")


async def answer(person: Person, authorization: str | None) -> tuple[int, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    said = await Person(person.client, None, None).ask("GET", "/wallet", headers=headers)
    return (200, "") if said.status == 200 else said.refusal


async def test_tokens_of_the_old_service_count(person: MakePerson) -> None:
    ann = await person()
    assert await answer(ann, f"Bearer {signed(ann)}") == (200, "")
    assert await answer(ann, f"bearer  {signed(ann)} ") == (200, "")
    # Issued by a machine whose clock is ahead of ours.
    assert await answer(ann, f"Bearer {signed(ann, iat=int(time.time()) + 5)}") == (200, "")
    # iss and aud are compared only when the settings say so.
    assert await answer(ann, f"Bearer {signed(ann, iss='x', aud='y')}") == (200, "")
    assert await answer(ann, f"Bearer {signed(ann, iss=None, aud=None)}") == (200, "")


async def test_what_is_wrong_with_a_token(person: MakePerson) -> None:
    """The contract's table (section 1.1)."""
    ann = await person()
    past = int(time.time()) - 100
    good = signed(ann)
    header, payload, signature = good.split(".")
    none = jwt.encode({"sub": str(ann.user.id), "iat": 1, "exp": 2**40}, "", algorithm="none")
    body = json.loads(base64.urlsafe_b64decode(payload + "=="))
    other = (
        base64.urlsafe_b64encode(json.dumps(body | {"sub": str(uuid.uuid4())}).encode()).rstrip(b"=").decode()
    )
    assert await answer(ann, None) == (403, "Not authenticated")
    for text in ("", "Bearer", "Bearer ", "Basic YTpi", good):
        assert await answer(ann, text) == (403, "Invalid authentication credentials"), text
    assert await answer(ann, f"Bearer {signed(ann, exp=past)}") == (401, "Token expired")
    for token in (
        signed(ann, secret=OLD_SECRET), "x", "x.y.z", none, f"{header}.{payload}.", f"{header}.{other}.{signature}",
        signed(ann, exp=None), signed(ann, iat=None), signed(ann, sub=None), signed(ann, sub="no uuid"),
        signed(ann, sid="no uuid"), signed(ann, sid=str(uuid.uuid4())), signed(ann, exp="x"),
        "x" * 5_000,
    ):  # fmt: skip
        assert await answer(ann, f"Bearer {token}") == (401, "Invalid token"), token
    assert await answer(ann, f"Bearer {signed(ann, sub=str(uuid.uuid4()))}") == (401, "User not found")


@pytest.mark.parametrize("token_settings", [{"jwt_validate_iss": True, "jwt_validate_aud": True}])
async def test_iss_and_aud_when_they_are_compared(person: MakePerson) -> None:
    ann = await person()
    assert await answer(ann, f"Bearer {signed(ann)}") == (200, "")
    assert await answer(ann, f"Bearer {signed(ann, iss='x')}") == (401, "Invalid token issuer")
    assert await answer(ann, f"Bearer {signed(ann, aud='x')}") == (401, "Invalid token")


@pytest.mark.parametrize("token_settings", [{"jwt_clock_skew_secs": 60}])
async def test_leeway(person: MakePerson) -> None:
    ann = await person()
    now = int(time.time())
    assert await answer(ann, f"Bearer {signed(ann, exp=now - 30)}") == (200, "")
    assert await answer(ann, f"Bearer {signed(ann, exp=now - 90)}") == (401, "Token expired")


@pytest.mark.parametrize("token_settings", [{"jwt_secret_previous": (OLD_SECRET,), "otp_mode": "dev"}])
async def test_a_previous_secret_counts_and_signs_nothing(person: MakePerson, nobody: Person) -> None:
    ann = await person()
    assert await answer(ann, f"Bearer {signed(ann, secret=OLD_SECRET)}") == (200, "")
    said = await nobody.post("/auth/verify_otp", {"phone": ann.phone, "otp": "123456"})
    jwt.decode(said.json["access_token"], SECRET, algorithms=["HS256"], audience="users", issuer="payments")
    assert (await nobody.get("/.well-known/jwks.json")).body == b'{"keys":[]}'


class TestRs256:
    @pytest.fixture
    def token_settings(self) -> dict[str, Any]:
        return {"jwt_alg": "RS256", "jwt_rs_private_pem": pem("new"), "otp_mode": "dev"}

    async def test_the_public_key_verifies_the_token(self, person: MakePerson, nobody: Person) -> None:
        said = await nobody.post("/auth/verify_otp", {"phone": "+963944123456", "otp": "123456"})
        token = said.json["access_token"]
        keys = (await nobody.get("/.well-known/jwks.json")).json["keys"]
        assert [list(key) for key in keys] == [["kty", "n", "e", "alg", "use", "kid"]]
        assert (keys[0]["kty"], keys[0]["alg"], keys[0]["use"], keys[0]["kid"]) == (
            "RSA", "RS256", "sig", "kid-dev",
        )  # fmt: skip
        assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": "kid-dev", "typ": "JWT"}
        public = jwt.PyJWK.from_dict(keys[0])
        claims = jwt.decode(token, public, audience="users", issuer="payments")
        assert claims["exp"] - claims["iat"] == 43_200 * 60
        assert await answer(Person(nobody.client, None, token), f"Bearer {token}") == (200, "")

    async def test_no_other_algorithm(self, person: MakePerson, nobody: Person) -> None:
        """The public key is no secret: a token signed with it as one is forged."""
        ann = await person()
        assert await answer(ann, f"Bearer {ann.token}") == (200, "")
        assert await answer(ann, f"Bearer {signed(ann)}") == (401, "Invalid token")


@pytest.mark.parametrize("key_id", ["new", "new,kid-dev", "kid-dev"])
async def test_keys_rotate(settings: Settings, person: MakePerson, key_id: str) -> None:
    """Tokens of the key before count, whatever id that goes by now."""
    ann = await person()
    common = settings.model_dump() | {"jwt_alg": "RS256"}
    before = Tokens(Settings.model_validate(common | {"jwt_rs_private_pem": pem("old")}))
    both = pem("new") + pem("old").replace("\n", "\\n")
    after = Tokens(Settings.model_validate(common | {"jwt_rs_private_pem": both, "jwt_key_id": key_id}))
    assert after.read(before.issue(ann.user, None)).user_id == ann.user.id
    kids = [key["kid"] for key in after.keys.jwks()["keys"]]
    assert (
        jwt.get_unverified_header(after.issue(ann.user, None))["kid"]
        == kids[0]
        == key_id.split(",", maxsplit=1)[0]
    )
    assert kids[1] == "kid-dev" if key_id == "new,kid-dev" else len(kids[1]) == 43
    # From HS256 to RS256: the secret is named as a previous one for as long as its tokens last.
    moved = Tokens(
        Settings.model_validate(common | {"jwt_rs_private_pem": pem("new"), "jwt_secret_previous": (SECRET,)})
    )
    assert moved.read(signed(ann)).user_id == ann.user.id
    assert len(moved.keys.jwks()["keys"]) == 1


async def test_without_a_pem_one_key_is_shared(settings: Settings) -> None:
    """Defect 28: each process had a key of its own."""
    rs256 = Settings.model_validate(settings.model_dump() | {"jwt_alg": "RS256", "jwt_secret": ""})
    first, second = Tokens(rs256), Tokens(rs256)
    assert first.enabled
    assert first.keys.jwks() == second.keys.jwks()
    file = Path(rs256.state_dir) / DEV_KEY_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == [DEV_KEY_FILE]
    prod = Tokens(rs256.model_copy(update={"env": "prod"}))
    assert not prod.enabled


ODD: tuple[Any, ...] = (
    10**400,
    -(10**400),
    float("inf"),
    float("nan"),
    True,
    "soon",
    [],
    {},
    [1],
    "9" * 4_000,
)


async def test_claims_of_odd_types(person: MakePerson) -> None:
    """Each is refused as a bad token, whatever it is, and in which claim."""
    ann = await person()
    for name in ("exp", "iat", "sub", "sid"):
        for value in ODD:
            status, _ = await answer(ann, f"Bearer {signed(ann, **{name: value})}")
            assert status == 401, (name, value)


async def test_no_token_of_the_future_outlives_the_end_of_all(person: MakePerson) -> None:
    ann = await person()
    now = int(time.time())
    soon, later = (signed(ann, iat=now + ahead, exp=now + 10_000_000) for ahead in (3, 1_000_000))
    assert await answer(ann, f"Bearer {soon}") == (200, "")
    assert await answer(ann, f"Bearer {later}") == (401, "Invalid token")
    assert (await ann.post("/auth/logout_all")).status == 200
    assert await answer(ann, f"Bearer {soon}") == (401, "Invalid token")
