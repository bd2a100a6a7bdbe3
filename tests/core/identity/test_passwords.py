"""Password hashing: bounded, and as much work for nobody as for somebody."""

import asyncio
import time

import bcrypt
import pytest
from argon2 import PasswordHasher

from core.errors import Refusal
from core.identity.passwords import MAX_WAITING, NOBODYS_HASH, Passwords, is_weak

# The password takes no time to hash, where the work itself is not what is tested.
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x")


async def test_hash_and_verify() -> None:
    passwords = Passwords()
    try:
        stored = await passwords.hash("correct horse")
        assert await passwords.verify(stored, "correct horse")
        for wrong in ("", "Correct horse", "correct horse ", "x" * 100_000):
            assert not await passwords.verify(stored, wrong)
        assert not await passwords.verify(None, "correct horse")
        assert not passwords.is_outdated(stored)
        assert not await passwords.verify("not a hash", "x")
    finally:
        passwords.close()


async def test_a_hash_of_the_service_before_counts_until_the_next_sign_in() -> None:
    passwords = Passwords()
    try:
        for stored, password in (
            ("$2b$04$" + "abcdefghijklmnopqrstuu" + "x", "correct horse"),  # a hash that was cut
            (bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode(), "correct horse"),
            (bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode(), "x" * 90),
        ):
            assert await passwords.verify(stored, password) is (len(stored) == 60)
            assert not await passwords.verify(stored, password[1:20])
            assert not await passwords.verify(stored, "nul\0")
            assert passwords.is_outdated(stored)
    finally:
        passwords.close()


async def test_nobody_takes_as_long_as_somebody() -> None:
    passwords = Passwords()
    try:
        assert not passwords.is_outdated(NOBODYS_HASH)  # of our parameters
        stored = await passwords.hash("correct horse")

        async def fastest(of: str | None) -> float:
            times = []
            for _ in range(5):
                started = time.perf_counter()
                await passwords.verify(of, "wrong")
                times.append(time.perf_counter() - started)
            return min(times)

        assert 0.3 < await fastest(None) / await fastest(stored) < 3
    finally:
        passwords.close()


async def test_a_flood_is_refused_and_not_queued() -> None:
    passwords = Passwords()
    try:
        answers = await asyncio.gather(
            *(passwords.verify(CHEAP, "x") for _ in range(MAX_WAITING + 20)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        assert len(refused) == 20
        assert {answer.code for answer in refused} == {"overloaded"}
    finally:
        passwords.close()


@pytest.mark.parametrize(
    ("password", "weak"),
    [
        ("aaaaaaaa", True),
        ("Robert12", True),
        ("+963944123456", True),
        ("password", False),
        ("Passw0rd!", False),
    ],
)
def test_weak(password: str, weak: bool) -> None:  # noqa: FBT001
    assert is_weak(password, "robert12", "+963944123456") is weak
