"""The wallet surface under whatever may come: no 5xx, and each answer is one that the document names.

Schemathesis makes the input from the document, as a user and as the administrator; `make fuzz` has it try more.
"""

import os
from pathlib import Path

import pytest

from core.settings import Settings
from handlers.wallets.routes import WALLETS
from tests.handlers.fuzzer import fuzz
from tests.handlers.wallets.conftest import ADMIN, ApiClient, MakePerson

pytestmark = pytest.mark.drill

# In the suite each operation is tried at the bounds of what it takes; `make fuzz` says how much random input follows.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
PHASES = "examples,coverage,fuzzing" if EXAMPLES else "examples,coverage"
TAGS = sorted({route.tag for route in WALLETS.routes})

# Left out, beside the checks of sequences, since no links between operations are described:
#   positive_data_acceptance: a schema cannot say that a phone must have a user, nor an amount a balance;
#   negative_data_rejection: the contract takes numbers as texts, ignores what it does not know, and brings a page size
#     within its bounds, so that much of what its schema forbids is accepted;
#   missing_required_header: a missing token is 403 here, and the check knows 401 and 406 only;
#   ignored_auth: it wants 401 where the contract says 403; tests/handlers/wallets/authorisation.toml says more.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Without rate limits: a 429 tries nothing."""
    return Settings.model_validate(settings.model_dump() | {"rate_limit_enabled": False})


@pytest.mark.timeout(300 + 30 * EXAMPLES)
async def test_answers_conform_whatever_comes(wallets: ApiClient, person: MakePerson, tmp_path: Path) -> None:
    somebody = await person(balance=10**12, kyc=2, merchant=True, agent=True)
    config = tmp_path / "schemathesis.toml"
    # Somebody who is there, so that more is tried than the way to say that they are not.
    config.write_text(f'[parameters]\nuser_id = "{(await person()).user.id}"\n')
    fuzzed = await fuzz(
        str(wallets.make_url("/")), config,
        "--header", f"Authorization: Bearer {somebody.token}",
        "--header", f"X-Admin-Token: {ADMIN}",
        *(f"--include-tag={tag}" for tag in TAGS),
        # No provider is set up here, so that a good request is rightly 503.
        "--exclude-path=/wallet/topup/card",
        "--checks", ",".join(CHECKS),
        "--phases", PHASES,
        "--max-examples", str(EXAMPLES or 1),
    )  # fmt: skip
    assert fuzzed.returncode == 0, fuzzed.stdout
