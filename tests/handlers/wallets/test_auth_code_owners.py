"""Codes as people type them, and owners apart from strangers."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from core.settings import Settings
from tests.handlers.wallets.conftest import Person, Said
from tests.handlers.wallets.operator import Operator, open_operator
from tests.handlers.wallets.test_auth_codes import PHONE, WRONG, ask_code, verify


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    async with open_operator() as opened:
        yield opened


@pytest.fixture
def settings(settings: Settings, operator: Operator) -> Settings:
    more: dict[str, Any] = {
        "otp_mode": "redis",
        "otp_sms_provider": "http",
        "otp_sms_http_url": operator.url,
        "rate_limit_enabled": False,
        "trusted_proxies": "127.0.0.0/8",
    }
    return Settings.model_validate(settings.model_dump() | more)


WRITTEN: tuple[Callable[[str], str], ...] = (
    lambda code: f" {code[:3]} {code[3:]}\n",
    lambda code: f"{code[:3]}-{code[3:]}",
    lambda code: "".join(chr(0x660 + int(digit)) for digit in code),
    lambda code: f"\u200f{code}\u200f",
)


async def test_a_code_as_people_type_it(nobody: Person, operator: Operator) -> None:
    """Digits of any script, blanks and dashes; and what is no code is a slip, and no try."""
    for number, write in enumerate(WRITTEN):
        phone = f"+96394412341{number}"
        await ask_code(nobody, phone)
        for slip in (
            "",
            "x",
            "12345",
            "1234567",
            "12345x",
            "\u00b9\u00b2\u00b3\u00b9\u00b2\u00b3",
            "1" * 5_000,
        ):
            assert (await verify(nobody, slip, phone=phone)).refusal == (400, "Invalid OTP")
        assert (await verify(nobody, write(operator.code()), phone=phone)).status == 200


async def test_strangers_do_not_lock_the_owner_out(nobody: Person, operator: Operator) -> None:
    """Guesses from elsewhere are counted apart, and a stranger's newer code does not hide the owner's."""

    async def of(address: str, path: str, **body: str) -> Said:
        return await nobody.post(f"/auth/{path}", {"phone": PHONE, **body}, **{"X-Forwarded-For": address})

    home, elsewhere = "192.0.2.1", "198.51.100.7"
    session = (await of(home, "request_otp")).json["otp_session"]
    code = operator.code()
    guesses = [await of(elsewhere, "verify_otp", otp=WRONG) for _ in range(3)]
    assert [said.status for said in guesses] == [400] * 3
    assert (await of("203.0.113.9", "verify_otp", otp=code)).refusal == (429, "Too many wrong codes")
    # The stranger asks for codes of their own, and uses up the tries at those.
    theirs = (await of(elsewhere, "request_otp")).json["otp_session"]
    for _ in range(3):
        await of(elsewhere, "verify_otp", otp=WRONG, session_id=theirs)
    assert (await of(elsewhere, "verify_otp", otp=WRONG, session_id=theirs)).status == 429
    # The owner comes from the address that asked, or with the session from any other.
    assert (await of(home, "verify_otp", otp=code)).status == 200
    session = (await of(home, "request_otp")).json["otp_session"]
    assert (await of("203.0.113.9", "verify_otp", otp=operator.code(), session_id=session)).status == 200


async def test_one_phone_has_one_count(nobody: Person, operator: Operator) -> None:
    for phone in (PHONE, "+963 (0) 944 123 456", "+9630944123456"):
        await ask_code(nobody, phone)
    assert (await nobody.post("/auth/request_otp", {"phone": "+963-944-123-456"})).status == 429
    assert [message["to"] for message in operator.got] == [PHONE] * 3
    assert (await verify(nobody, operator.code(), phone="+9630944123456")).status == 200
