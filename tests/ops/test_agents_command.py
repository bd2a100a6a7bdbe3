"""`tallystick agents`: an operator appoints, bounds, suspends and lists agents from the command line."""

import json
from typing import Any

from core.platform import open_platform
from core.service import open_service
from core.settings import Settings
from tests.commands import tallystick

PHONE = "+963944123456"


async def test_an_agents_way(settings: Settings) -> None:
    environment = {"DATABASE_URL": str(settings.database_url), "ENV": "test", "STATE_DIR": settings.state_dir}
    async with open_service(settings) as service, open_platform(service) as platform:
        user = await platform.users.ensure(PHONE)

        async def agents(*arguments: str) -> Any:
            ended = await tallystick("agents", *arguments, "--json", **environment)
            assert ended.returncode == 0, ended.stderr
            return json.loads(ended.stdout)

        made = await agents("appoint", "0944 123 456", "--request-max", "500", "--float-max", "9000")
        assert made == {
            "user_id": str(user.id), "phone": PHONE, "name": None, "state": "active", "request_max": 500,
            "day_max": None, "float_max": 9000, "appointed_at": made["appointed_at"],
        }  # fmt: skip
        bounded = {**made, "day_max": 7, "float_max": None}
        assert await agents("limits", str(user.id), "--day-max", "7", "--float-max", "none") == bounded
        found = await platform.users.by_id(user.id)
        assert found is not None
        assert found.is_agent
        suspended = {**bounded, "state": "suspended"}
        assert await agents("suspend", PHONE, "--reason", "lost the till") == suspended
        assert await agents("list", "--state", "suspended") == [suspended]
        assert await agents("list", "--state", "active") == []
    for wrong in (("appoint", PHONE, "--day-max", "0"), ("limits", PHONE), ("suspend", PHONE)):
        assert (await tallystick("agents", *wrong, **environment)).returncode == 2
    missing = await tallystick("agents", "appoint", "+963000000000", **environment)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "There is no such user." in missing.stderr
