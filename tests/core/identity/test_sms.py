"""What the log shows of a sign-in code."""

import json
from io import BytesIO
from typing import Any

import pytest

from core.identity.sms import open_messages
from core.log import configure_logging
from core.settings import Settings

PHONE = "+963944123456"


@pytest.fixture
def lines(settings: Settings, logging_as_before: None) -> BytesIO:
    stream = BytesIO()
    configure_logging(settings, stream)
    return stream


@pytest.mark.parametrize(("env", "shown"), [("dev", True), ("test", False), ("prod", False)])
async def test_the_log_shows_the_code_in_development_only(
    settings: Settings,
    lines: BytesIO,
    env: Any,
    shown: bool,  # noqa: FBT001
) -> None:
    messages = open_messages(settings.model_copy(update={"env": env}))
    await messages.send_code(PHONE, "271828", "id")
    await messages.close()
    (line,) = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert line["to"] == "+963…56"
    assert ("271828" in str(line)) is shown
    assert PHONE not in str(line)


async def test_a_failure_shows_neither_phone_nor_code(settings: Settings, lines: BytesIO) -> None:
    more = {"otp_sms_provider": "http", "otp_sms_http_url": "http://127.0.0.1:1/?token=secret"}
    messages = open_messages(settings.model_copy(update=more | {"otp_sms_fallback_provider": "log"}))
    await messages.send_code(PHONE, "271828", "id")
    await messages.close()
    text = lines.getvalue().decode()
    assert "sign_in.message_not_sent" in text
    for secret in ("271828", PHONE, "secret"):
        assert secret not in text
