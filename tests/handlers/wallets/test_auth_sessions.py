"""Sign-ins: seen by their owner, ended one by one or all, renewed by refresh tokens that are good once."""

import asyncio
import base64
from typing import Any

import pytest

from core.settings import Settings
from tests.handlers.wallets.conftest import MakePerson, Person

PHONE = "+963944123456"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return Settings.model_validate(
        settings.model_dump() | {"otp_mode": "dev", "rate_limit_enabled": False, "session_access_minutes": 5}
    )


async def sign_in(nobody: Person, *, refresh: bool = False, agent: str = "app/1") -> tuple[Person, Any]:
    body = {"phone": PHONE, "otp": "123456", "refresh": refresh}
    said = await nobody.post("/auth/verify_otp", body, **{"User-Agent": agent})
    assert said.status == 200, said
    return Person(nobody.client, None, said.json["access_token"]), said.json


async def works(person: Person) -> bool:
    said = await person.get("/wallet")
    assert said.status == 200 or said.refusal == (401, "Invalid token")
    return said.status == 200


async def test_log_out_ends_this_sign_in(nobody: Person) -> None:
    """Defect 35: no revocation."""
    phone, laptop = (await sign_in(nobody))[0], (await sign_in(nobody))[0]
    assert await works(phone)
    assert (await phone.post("/auth/logout")).body == b'{"detail":"signed out"}'
    assert (await works(phone), await works(laptop)) == (False, True)
    assert (await phone.post("/auth/logout")).refusal == (401, "Invalid token")


async def test_log_out_of_all(nobody: Person) -> None:
    phone, laptop = (await sign_in(nobody))[0], (await sign_in(nobody))[0]
    assert (await phone.post("/auth/logout_all")).status == 200
    assert (await works(phone), await works(laptop)) == (False, False)
    # Within the same second.
    assert await works((await sign_in(nobody))[0])


async def test_tokens_of_the_old_service_end_with_all(person: MakePerson) -> None:
    for path in ("/auth/logout", "/auth/logout_all"):
        ann = await person()
        assert await works(ann)
        assert (await ann.post(path)).status == 200
        assert not await works(ann)


async def test_the_list(nobody: Person, person: MakePerson) -> None:
    laptop, _ = await sign_in(nobody, agent="laptop \u00e9" + "x" * 300)
    phone, _ = await sign_in(nobody)
    listed = (await phone.get("/auth/sessions")).json["sessions"]
    assert [list(one) for one in listed] == [
        ["id", "client", "created_at", "used_at", "expires_at", "current"]
    ] * 2
    assert [(one["client"][:7], one["current"]) for one in listed] == [("app/1", True), ("laptop ", False)]
    assert len(listed[1]["client"]) <= 200
    assert listed[0]["created_at"].endswith("Z")
    eve = await person()
    assert (await eve.delete(f"/auth/sessions/{listed[1]['id']}")).refusal == (404, "Session not found")
    assert await works(laptop)
    assert (await phone.delete(f"/auth/sessions/{listed[1]['id']}")).status == 200
    assert not await works(laptop)
    assert (await phone.delete(f"/auth/sessions/{listed[1]['id']}")).status == 404
    assert (await phone.delete("/auth/sessions/x")).status == 422
    assert [one["current"] for one in (await phone.get("/auth/sessions")).json["sessions"]] == [True]


async def renew(nobody: Person, token: Any) -> Any:
    return await nobody.post("/auth/refresh", {"refresh_token": token})


async def test_refresh(nobody: Person) -> None:
    ann, first = await sign_in(nobody, refresh=True)
    assert list(first) == ["access_token", "token_type", "expires_in", "refresh_token"]
    assert first["expires_in"] == 300
    second = await renew(nobody, first["refresh_token"])
    assert second.status == 200, second
    assert second.json["refresh_token"] != first["refresh_token"]
    renewed = Person(nobody.client, None, second.json["access_token"])
    assert (await works(ann), await works(renewed)) == (True, True)
    assert len((await renewed.get("/auth/sessions")).json["sessions"]) == 1
    third = await renew(nobody, second.json["refresh_token"])
    assert third.status == 200
    # The oldest comes back, so two have it: the sign-in ends, with all its tokens.
    assert (await renew(nobody, first["refresh_token"])).refusal == (401, "Invalid refresh token")
    assert (await renew(nobody, third.json["refresh_token"])).refusal == (401, "Invalid refresh token")
    assert (await works(ann), await works(renewed)) == (False, False)


async def test_one_refresh_token_at_once(nobody: Person, owner: Any) -> None:
    """A client whose answer was lost asks again, and gets the same successor; soon after, that means a thief."""
    ann, first = await sign_in(nobody, refresh=True)
    answers = await asyncio.gather(*(renew(nobody, first["refresh_token"]) for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    (successor,) = {answer.json["refresh_token"] for answer in answers}
    assert all([await works(Person(nobody.client, None, answer.json["access_token"])) for answer in answers])
    await owner.execute("UPDATE sessions SET rotated_at = rotated_at - interval '31 seconds'")
    assert (await renew(nobody, first["refresh_token"])).refusal == (401, "Invalid refresh token")
    assert (await renew(nobody, successor)).status == 401
    assert not await works(ann)
    assert await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'auth.refresh_reused'") == 1


async def test_a_used_successor_ends_the_seconds(nobody: Person) -> None:
    """A lost answer is given again only while nobody has used what was in it."""
    _, first = await sign_in(nobody, refresh=True)
    second = (await renew(nobody, first["refresh_token"])).json["refresh_token"]
    assert (await renew(nobody, second)).status == 200
    assert (await renew(nobody, first["refresh_token"])).status == 401
    assert (await renew(nobody, second)).status == 401


async def test_a_guess_ends_nothing(nobody: Person) -> None:
    """The id of a sign-in is no secret; only who held a real refresh token can end it by a used one."""
    ann, first = await sign_in(nobody, refresh=True)
    token = first["refresh_token"]
    data = base64.urlsafe_b64decode(token.removeprefix("tsr_"))
    forged = "tsr_" + base64.urlsafe_b64encode(data[:16] + bytes(32)).decode()
    for guess in (
        forged,
        "",
        "x",
        "tsr_",
        token[:-4],
        token.removeprefix("tsr_"),
        "tsr_" + "é" * 64,
        "x" * 9_000,
    ):
        assert (await renew(nobody, guess)).refusal == (401, "Invalid refresh token")
    for guess in (None, 5, {}):
        assert (await renew(nobody, guess)).status == 422
    assert await works(ann)
    assert (await renew(nobody, token)).status == 200


async def test_a_refresh_token_ends_with_its_sign_in(nobody: Person, owner: Any) -> None:
    ann, first = await sign_in(nobody, refresh=True)
    await ann.post("/auth/logout")
    assert (await renew(nobody, first["refresh_token"])).status == 401
    _, second = await sign_in(nobody, refresh=True)
    await owner.execute("UPDATE sessions SET expires_at = now() WHERE revoked_at IS NULL")
    assert (await renew(nobody, second["refresh_token"])).status == 401


async def test_ending_all_against_renewing(nobody: Person) -> None:
    """Whichever comes first, after both nothing of before counts."""
    for _ in range(5):
        ann, first = await sign_in(nobody, refresh=True)
        renewed, ended = await asyncio.gather(
            renew(nobody, first["refresh_token"]), ann.post("/auth/logout_all")
        )
        assert ended.status == 200
        assert not await works(ann)
        if renewed.status == 200:
            assert (await renew(nobody, renewed.json["refresh_token"])).status == 401
