"""`tallystick secrets`, and the page of rotations beside it."""

import re
from pathlib import Path

from core.settings.files import is_secret
from core.settings.kinds import names_of
from core.settings.load import Settings
from ops.commands.secrets.known import KNOWN, steps_of
from tests.commands import tallystick
from tests.core.test_settings_prod import STRONG

ROTATION = (Path(__file__).parents[3] / "ops" / "secrets" / "ROTATION.md").read_text()


def test_every_secret_of_the_settings_is_known_and_has_its_section() -> None:
    found = {attribute for attribute, field in Settings.model_fields.items() if is_secret(field)}
    assert {attribute for known in KNOWN.values() for attribute in known.attributes} == found
    for name, known in KNOWN.items():
        assert names_of(known.attributes[0], Settings.model_fields[known.attributes[0]])[0] == name
        assert f"\n### {name}\n" in ROTATION
        assert all(step and "{" not in step.replace("{secret", "") for step in steps_of(name)), name


async def test_a_fresh_value_is_printed_and_a_set_one_never(tmp_path: Path) -> None:
    old = STRONG[::-1]
    file = tmp_path / "token"
    file.write_text(f"{STRONG}\n{old}\n")
    environment = {
        "ENV": "test", "ADMIN_TOKEN_FILE": str(file), "JWT_SECRET": STRONG, "JWT_SECRET_PREVIOUS": old,
        "INTERNAL_API_SECRET": "too-short",
    }  # fmt: skip
    listed = await tallystick("secrets", "list", **environment)
    assert re.search(r"^ADMIN_TOKEN +2$", listed.stdout, re.MULTILINE), listed
    assert re.search(r"^JWT_SECRET +2$", listed.stdout, re.MULTILINE)
    assert re.search(r"^SECRETS_KEYS +unset$", listed.stdout, re.MULTILINE)
    checked = await tallystick("secrets", "check", **environment)
    assert checked.returncode == 1
    assert "ADMIN_TOKEN: 2 active, a rotation is under way" in checked.stdout
    assert "INTERNAL_API_SECRET: 1 active, weak" in checked.stdout
    made = await tallystick("secrets", "new", "internal_api_secret", **environment)
    assert re.fullmatch(r"[0-9a-f]{64}\n", made.stdout), made
    assert "3. Wait until" in made.stderr
    given = await tallystick("secrets", "new", "STRIPE_SIGNING_SECRET", **environment)
    assert (given.stdout, given.returncode) == ("", 0)
    told = "".join(one.stdout + one.stderr for one in (listed, checked, made, given))
    assert not any(secret in told for secret in (STRONG, old, "too-short"))
