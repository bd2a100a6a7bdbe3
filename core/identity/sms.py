"""Senders of sign-in codes: the operator's HTTP service, or the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
import structlog
from aiohttp import hdrs

from core import metrics
from core.errors import Refusal
from core.phones import masked
from core.tracing.outgoing import Outgoing

if TYPE_CHECKING:
    from core.settings import Settings

_log = structlog.get_logger(__name__)

# So many sockets go to the service. A message that finds all of them busy waits within the time limit of the call.
CONNECTIONS: Final = 50
RETRY_SECONDS: Final = 5.0


class NotSentError(Exception):
    """A message did not go out; with `maybe` it may have gone out all the same."""

    def __init__(self, reason: str, *, maybe: bool = False) -> None:
        super().__init__(reason)
        self.maybe = maybe


class Sender(Protocol):
    """A way to send one message to one phone."""

    name: str

    async def send(self, phone: str, text: str, message_id: str) -> None:
        """Send `text`; `message_id` is the same for the same message. Raises NotSentError."""

    async def close(self) -> None:
        """Close the connections."""


class LogSender:
    """The sender that writes a log line in the place of a message, with the text only in development."""

    name = "log"

    def __init__(self, *, with_text: bool) -> None:
        self._with_text = with_text

    async def send(self, phone: str, text: str, message_id: str) -> None:  # noqa: ARG002
        """Write the line."""
        shown = {"text": text} if self._with_text else {}
        _log.info("sign_in.message", to=masked(phone), **shown)

    async def close(self) -> None:
        """Do nothing."""


class HttpSender:
    """The sender that posts `{to, message, sender}` to the operator's URL; any 2xx means that it will be sent."""

    name = "http"

    def __init__(self, url: str, token: str, sender: str, timeout_seconds: float) -> None:
        self._url = url
        self._sender = sender
        self._headers = {hdrs.AUTHORIZATION: f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, phone: str, text: str, message_id: str) -> None:
        """Post the message. Raises NotSentError."""
        if not self._url:
            raise NotSentError("OTP_SMS_HTTP_URL is unset")
        body = {"to": phone, "message": text, "sender": self._sender}
        headers = self._headers | {"Idempotency-Key": message_id}
        try:
            with Outgoing("sms", "POST", self._url) as told:
                async with self._opened().post(
                    self._url, json=body, headers=headers, allow_redirects=False
                ) as answer:
                    told.status = answer.status
                if 200 <= answer.status < 300:
                    return
                raise NotSentError(f"it answers {answer.status}")
        except TimeoutError as error:
            raise NotSentError(f"no answer within {self._timeout.total:g} s", maybe=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            never = isinstance(error, (aiohttp.ClientConnectorError, ValueError))
            raise NotSentError(type(error).__name__, maybe=not never) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No connection is kept, because a stale one would cost somebody a code.
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, force_close=True),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session


class Messages:
    """The senders of a process, in the order in which they are tried."""

    def __init__(self, senders: tuple[Sender, ...], template: str) -> None:
        self._senders = senders
        self._template = template

    async def send_code(self, phone: str, code: str, message_id: str) -> None:
        """Send a code by the first sender that takes it.

        Raises Refusal `sms_failed`; its `maybe_sent` says that a sender may have taken the code all the same.
        """
        text = self._template.replace("{code}", code)
        maybe = False
        for sender in self._senders:
            try:
                await sender.send(phone, text, message_id)
            except NotSentError as error:
                maybe = maybe or error.maybe
                metrics.SIGN_IN_MESSAGES.add(sender.name, "failed")
                _log.warning(
                    "sign_in.message_not_sent", sender=sender.name, to=masked(phone), reason=str(error)
                )
            else:
                metrics.SIGN_IN_MESSAGES.add(sender.name, "sent")
                return
        refusal = Refusal("sms_failed", "The code could not be sent. Try again.", retry_after=RETRY_SECONDS)
        refusal.extra["maybe_sent"] = maybe
        raise refusal

    async def close(self) -> None:
        """Close all senders."""
        for sender in self._senders:
            await sender.close()


def open_messages(settings: Settings) -> Messages:
    """Return the sender of OTP_SMS_PROVIDER, followed by that of OTP_SMS_FALLBACK_PROVIDER."""
    names = [settings.otp_sms_provider]
    if settings.otp_sms_fallback_provider not in {"none", *names}:
        names.append("log" if settings.otp_sms_fallback_provider == "log" else "http")
    return Messages(tuple(_sender(name, settings) for name in names), settings.otp_sms_template)


def _sender(name: str, settings: Settings) -> Sender:
    if name == "log":
        return LogSender(with_text=settings.env == "dev")
    return HttpSender(
        settings.otp_sms_http_url,
        str(settings.otp_sms_http_auth_token),
        settings.otp_sms_sender_name,
        settings.otp_sms_timeout_secs,
    )
