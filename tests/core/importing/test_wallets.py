"""The wallets' database carried over: money to the unit, everything under its id, twice as well as once."""

from typing import Any
from uuid import uuid4

import pytest

from core.database import Database
from core.importing.wallets import PHONES_PROVEN, STEPS
from core.ledger.items import operation_id
from core.outbox.signing import owner_of
from core.settings import Settings
from core.vault import Vault
from core.wallets.merchant_keys import unseal
from tests.core.importing.conftest import Fill, carry_over, counts, values
from tests.core.importing.olddb import WALLETS, WALLETS_BEYOND
from tests.core.importing.wallet_rows import ALICE, BAKER, BALANCES, CAROL, rows
from tests.invariants import faults

EXPECTED = {
    "users": (3, 0, 0), "totals": (0, 1, 0), "merchant_keys": (1, 0, 0), "endpoints": (2, 0, 1), "passkeys": (1, 0, 1),
    "requests": (1, 0, 0), "invoices": (1, 0, 0), "links": (2, 0, 0), "qr_codes": (1, 0, 0), "mandates": (1, 0, 0),
    "subscriptions": (1, 0, 0), "vouchers": (0, 0, 1), "cash_requests": (0, 0, 1), "transfer_keys": (1, 0, 0),
}  # fmt: skip


async def test_everything_is_carried_over_once(fill: Fill, target: Database, settings: Settings) -> None:
    url = await fill({**WALLETS, **WALLETS_BEYOND}, rows())

    tried = await carry_over(target, settings, "wallets", STEPS, url, dry_run=True)
    assert counts(tried) == EXPECTED
    assert await values(target, "SELECT id FROM users UNION ALL SELECT id FROM payables") == []
    assert await values(target, "SELECT step FROM imports") == []

    result = await carry_over(target, settings, "wallets", STEPS, url)
    assert counts(result) == EXPECTED
    assert [(one.step, one.refused) for one in result.problems] == [
        ("users", False), ("endpoints", True), ("passkeys", True), ("vouchers", True), ("cash_requests", True)
    ]  # fmt: skip
    assert "hook-secret" not in str(result)

    again = await carry_over(target, settings, "wallets", STEPS, url)
    assert counts(again) == {
        step: (0, new + known, refused) for step, (new, known, refused) in EXPECTED.items()
    }

    await _check_users(target)
    await _check_secrets(target, settings)
    assert await values(
        target,
        "SELECT kind, code, payee_id = $1, payer_id = $2, amount, reusable, state FROM payables ORDER BY id",
        BAKER,
        ALICE,
    ) == [
        ("request", None, True, True, 500, False, "open"),
        ("invoice", None, True, True, 500, False, "open"),
        ("link", "link-code", True, None, 500, False, "open"),
        ("link", "tip-jar", True, None, None, True, "open"),
        ("qr", "qr-code", True, None, None, True, "open"),
    ]
    [(details,)] = await values(target, "SELECT details ->> 'metadata' FROM payables WHERE kind = 'request'")
    assert details == '{"z":1,"a":2}' or url.startswith("postgres")  # jsonb there sorts the names
    assert await faults(str(settings.database_url)) == {}


async def _check_users(target: Database) -> None:
    balances = await values(
        target,
        "SELECT u.id, a.balance FROM users AS u JOIN accounts AS a ON a.code = 'wallet:' || u.wallet_id ORDER BY u.id",
    )
    assert dict(balances) == BALANCES
    [(opening,)] = await values(target, "SELECT balance FROM accounts WHERE code = 'system:opening:SYP'")
    assert opening == -sum(BALANCES.values())
    assert await values(
        target,
        "SELECT username, kyc_level, is_merchant, merchant_fee_bps, phone_proven_at, created_at::text FROM users"
        " ORDER BY phone",
    ) == [
        ("Alice", 1, False, None, None, "2025-06-01 12:30:15.25+00"),
        (None, 1, True, 150, None, "2025-06-01 12:30:15.25+00"),
        (None, 0, False, None, None, "2025-06-01 12:30:15.25+00"),
    ]


async def _check_secrets(target: Database, settings: Settings) -> None:
    endpoints = await values(
        target, "SELECT id, secrets[1], disabled_at IS NULL FROM webhook_endpoints ORDER BY id"
    )
    vault = Vault.of(settings)
    assert [(vault.open(secret, owner_of(id_)), on) for id_, secret, on in endpoints] == [
        ("hook-secret", True), ("x", False)
    ]  # fmt: skip
    [(key_id, sealed)] = await values(target, "SELECT key_id, sealed_secret FROM merchant_api_keys")
    assert unseal(settings, key_id, bytes(sealed)) == "s3cret"
    [(principal,)] = await values(target, "SELECT principal_id FROM users WHERE id = $1", ALICE)
    taken = await values(
        target, "SELECT no FROM keys WHERE id = $1", operation_id(principal, "app-1700000000000")
    )
    assert taken == [(None,)]


async def test_rows_that_cannot_be_carried_over_are_told(
    fill: Fill, target: Database, settings: Settings
) -> None:
    old = rows()
    old["users"][0]["kyc_status"] = "perhaps"
    old["wallets"][1]["balance_cents"] = -1
    old["wallets"][2]["user_id"] = uuid4()
    result = await carry_over(target, settings, "wallets", STEPS, await fill(WALLETS, old))

    steps = {step.step: step for step in result.steps}
    assert (steps["users"].new, steps["users"].refused) == (0, 3)
    assert (steps["balances"].refused, steps["passkeys"].skipped) == (
        1, "the source has no table passkey_credentials"
    )  # fmt: skip
    told = {problem.text for problem in result.problems if problem.step in {"users", "balances", "totals"}}
    assert told == {
        "kyc_status is 'perhaps', which is not known",
        "balance_cents is -1, out of its bounds",
        "the balance is -1, and the entries sum to 2147483647",
        "wallet_id is missing",
        "the wallets have 12344, and 0 of it was carried over",
    }
    # The mended database; a balance that has changed since is told and not posted again.
    old["users"][0]["kyc_status"] = "approved"
    old["wallets"][1]["balance_cents"] = 5
    old["wallets"][2]["user_id"] = CAROL
    result = await carry_over(
        target, settings, "wallets", STEPS, await fill(WALLETS, old), options=frozenset({PHONES_PROVEN})
    )
    steps = {step.step: step for step in result.steps}
    assert (steps["users"].new, steps["users"].known, steps["users"].refused) == (3, 0, 0)
    old["wallets"][1]["balance_cents"] = 6
    old["wallets"][2]["balance_cents"] = 1
    result = await carry_over(target, settings, "wallets", STEPS, await fill(WALLETS, old))
    assert [problem.text for problem in result.problems if problem.step in {"users", "totals"}] == [
        "the balance is 6 now, and another one was carried over before",
        "the balance is 1 now, and none was carried over before",
        "the wallets have 12352, and 12350 of it was carried over",
    ]
    [(proven,)] = await values(target, "SELECT count(phone_proven_at) FROM users")
    assert proven == 3


async def test_a_run_that_was_ended_goes_on(fill: Fill, target: Database, settings: Settings) -> None:
    url = await fill(WALLETS, rows())

    def die(told: Any) -> None:
        if told.step == "links":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await carry_over(target, settings, "wallets", STEPS, url, on_page=die)
    result = await carry_over(target, settings, "wallets", STEPS, url)
    steps = {step.step: step for step in result.steps}
    assert steps["users"].skipped == "done by the run before, which was ended"
    assert (steps["links"].known, steps["qr_codes"].new) == (2, 1)
    assert (await carry_over(target, settings, "wallets", STEPS, url)).steps[0].known == 3
