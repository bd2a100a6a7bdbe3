"""`tallystick pos`: a till, which calls the same HTTP routes as any other client."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from ops.commands.develop.target import MERCHANT_VARIABLES, URL_VARIABLES, address_here, check_address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiohttp

# The wallet contract, section 7, has these numbers.
POLL_SECONDS: Final = 2.0
WAIT_SECONDS: Final = 120
CALL_SECONDS: Final = 15
LONGEST_WAIT_SECONDS: Final = 86_400
MOST_CENTS: Final = 2**62 - 1
MAX_SHOWN: Final = 200
# The address of the contract, where no other is known.
LOCAL_URL: Final = "http://localhost:8080"
KEY_PREFIX: Final = "tsk_"

# After these statuses a call may work a moment later.
_LATER: Final = frozenset({429, 500, 502, 503, 504})


class Refused(click.ClickException):
    """The service refused, or did not answer: exit code 1. With `later` the same call may work soon."""

    def __init__(self, message: str, *, later: bool = False) -> None:
        super().__init__(message)
        self.later = later


@dataclass(frozen=True, slots=True)
class Till:
    """A merchant's connection to the service."""

    session: aiohttp.ClientSession
    base: str
    token: str

    async def call(
        self, method: str, path: str, *, params: dict[str, str] | None = None, body: Any = None
    ) -> Any:
        """Return the JSON of an answer. Raises Refused."""
        import aiohttp

        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            # No redirect is followed, because the token is for this address only.
            async with self.session.request(
                method, self.base + path, params=params, json=body, headers=headers, allow_redirects=False
            ) as response:
                text = await response.text()
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Refused(
                f"{self.base} does not answer: {str(error) or type(error).__name__}.", later=True
            ) from None
        try:
            answer = json.loads(text)
        except ValueError:
            raise Refused(
                f"{status}: {text[:MAX_SHOWN]!r} is no answer of ours.", later=status in _LATER
            ) from None
        if status != 200:
            raise Refused(f"{status}: {_reason(answer)}", later=status in _LATER)
        return answer


@click.group()
@click.option(
    "--url",
    "--base-url",
    "url",
    envvar=URL_VARIABLES,
    help="Where the service is.  [default: TALLYSTICK_URL, or the one that `tallystick up` runs here]",
)
@click.option(
    "--token",
    envvar=MERCHANT_VARIABLES,
    default="",
    help="The merchant's access token.  [default: TALLYSTICK_TOKEN]",
)
@click.pass_context
def pos(context: click.Context, url: str | None, token: str) -> None:
    """Be a till: show QR codes, wait for their payment, ask a customer whose code was scanned.

    \b
    Examples:
      export TALLYSTICK_URL=https://pay.example.com TALLYSTICK_TOKEN=eyJ...
      tallystick pos create_qr 2550
      tallystick pos wait_paid 'PAY:v1;code=...'
      tallystick pos cpm_request 'CPM:v1;phone=+963944123456' 2550

    Amounts are in minor units (cents). Answers are JSON on standard output. Exit code 1: refused, not reached, or not
    paid; 2: wrong usage.
    """  # noqa: D301 - `\b` is how click is told not to wrap
    if url:
        check_address(url)
    if (token and not (token.isascii() and token.isprintable())) or " " in token:
        raise click.UsageError("The token holds characters that no token has (TALLYSTICK_TOKEN).")
    context.obj = (url or "", token)


CENTS = click.IntRange(1, MOST_CENTS)


@pos.command("create_qr")
@click.argument("cents", type=CENTS)
@click.option(
    "--static", is_flag=True, help="A code to be paid many times, with the amount left to the payer."
)
@click.pass_obj
def create_qr(where: tuple[str, str], cents: int, *, static: bool) -> None:
    """Make a QR code and print it."""
    body = {"amount_cents": cents, "mode": "static" if static else "dynamic"}
    _show(_with_till(where, lambda till: till.call("POST", "/payments/merchant/qr", body=body)))


@pos.command("qr_status")
@click.argument("code")
@click.pass_obj
def qr_status(where: tuple[str, str], code: str) -> None:
    """Print the state of a QR code."""
    _show(_with_till(where, lambda till: _status(till, code)))


@pos.command("wait_paid")
@click.argument("code")
@click.argument("secs", type=click.IntRange(1, LONGEST_WAIT_SECONDS), default=WAIT_SECONDS)
@click.pass_obj
def wait_paid(where: tuple[str, str], code: str, secs: int) -> None:
    """Ask for the state of a code every 2 seconds, until it is paid or can be paid no more.

    Prints `status=...` each time. Exit code 0: paid (used); 1: the code has expired, or SECS (120) are over.
    """
    status = _with_till(where, lambda till: _wait(till, code, secs))
    if status != "used":
        raise click.exceptions.Exit(1)


@pos.command("cpm_request")
@click.argument("scanned")
@click.argument("cents", type=CENTS)
@click.pass_obj
def cpm_request(where: tuple[str, str], scanned: str, cents: int) -> None:
    """Ask the customer whose code was SCANNED for money."""
    body = {"scanned_text": scanned, "amount_cents": cents}
    _show(_with_till(where, lambda till: till.call("POST", "/payments/merchant/cpm_request", body=body)))


def _with_till(where: tuple[str, str], do: Callable[[Till], Awaitable[Any]]) -> Any:
    if not where[1]:
        raise click.UsageError("There is no token: set TALLYSTICK_TOKEN, or give --token.")

    if where[1].startswith(KEY_PREFIX):
        raise click.UsageError(
            "TALLYSTICK_TOKEN is an API key. A till wants the token of its merchant, which signing in gives."
        )
    base = (where[0] or address_here() or LOCAL_URL).rstrip("/")

    async def run() -> Any:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            return await do(Till(session, base, where[1]))

    return asyncio.run(run())


async def _status(till: Till, code: str) -> Any:
    return await till.call("GET", "/payments/merchant/qr_status", params={"code": code})


async def _wait(till: Till, code: str, seconds: int) -> str:
    """Return the last status. A call that fails for a passing cause does not end the wait."""
    give_up_at = time.monotonic() + seconds
    while True:
        status = "unknown"
        try:
            status = str((await _status(till, code))["status"])
        except Refused as refused:
            if not refused.later:
                raise
            click.echo(refused.message, err=True)
        click.echo(f"status={status}")
        if status not in {"active", "unknown"} or time.monotonic() + POLL_SECONDS > give_up_at:
            return status
        await asyncio.sleep(POLL_SECONDS)


def _reason(answer: Any) -> str:
    """Return the sentence of a refusal, in either form of the contract."""
    if isinstance(answer, dict):
        error, detail = answer.get("error"), answer.get("detail")
        if isinstance(error, dict) and "message" in error:
            return str(error["message"])[:MAX_SHOWN]
        if detail:
            return json.dumps(detail)[:MAX_SHOWN]
    return json.dumps(answer)[:MAX_SHOWN]


def _show(answer: Any) -> None:
    click.echo(json.dumps(answer))
