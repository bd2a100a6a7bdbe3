"""The requests of each measurement, as templates that both clients fill in.

A request is `head`, then `items` times `item` joined by commas, then `tail`. In head and item these are filled in anew
each time, and always with the same number of bytes, so that the Content-Length in the head stays true:

    <key>   unique: the prefix, which differs between measurements, and a number of `COUNTER_DIGITS` digits
    <from>  the number of an account, six digits, uniform from 1 to `accounts`
    <to>    the number of another account
    <amount>  100 to 999
    <at>    a moment, uniform between `earliest` and `latest` (unix seconds), as 2026-01-31T23:59:59Z
    <token>  one of the workload's tokens
    <signature>  Stripe's signature of the body, which is then made of the items alone; our own client fills it in
"""

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ops.stripe_events import payment_intent_succeeded

COUNTER_DIGITS = 9
WIDTHS = {"from": 6, "to": 6, "amount": 3, "at": 20}
PLACEHOLDER = re.compile(r"<(key|from|to|amount|at|token|signature)>")
ACCOUNT_PREFIX = "acct-"
HOT_ACCOUNT = "acct-hot"
CURRENCY = "KZT"
#: The measured service checks Stripe's signatures with the first secret, and does not know the second.
STRIPE_SECRET = "whsec_of_the_benchmark"  # noqa: S105 - both sides of it run here
UNKNOWN_SECRET = "whsec_of_somebody_else"  # noqa: S105
STRIPE_PATH = "/webhooks/stripe"
QR_PATH = "/payments/merchant/pay"
P2P_PATH = "/wallet/transfer"
CARD_PATH = "/wallet/topup/card"


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request, and how its answer is checked.

    Every answer must have a status below 400, or `status` where that is given. Where `expect` is given it must also
    occur `items` times in the body: a batch answers 200 even when each of its items was refused. `repeats` is the share
    of requests that carry the body of one of the last again, with a signature of their own. `name_sent` and
    `name_answered` are patterns whose group is the name of a request, in its bytes or in those of the answer; our own
    client then tells when each was sent.
    """

    head: str
    item: str = ""
    items: int = 0
    tail: str = ""
    expect: str = ""
    key_prefix: str = ""
    accounts: int = 2
    earliest: int = 0
    latest: int = 1
    status: int = 0
    signing_secret: str = ""
    repeats: float = 0.0
    tokens: tuple[str, ...] = ()
    name_sent: str = ""
    name_answered: str = ""

    def as_lua(self) -> str:
        """The same as a Lua chunk that returns a table, for wrk. JSON's escapes of ASCII text are Lua's too."""
        fields = msgspec.to_builtins(self)
        del fields["name_sent"], fields["name_answered"]  # wrk does not tell when it sent what
        tokens = "{" + ",".join(f'"{token}"' for token in fields.pop("tokens")) + "}"
        pairs = [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in fields.items()]
        pairs.append(f"tokens = {tokens}")
        return "return { " + ", ".join(pairs) + " }\n"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """A caller of the service: the authority for the Host header, the API key and the number of accounts."""

    host: str
    port: int
    token: str
    accounts: int

    def single(self, *, hot: bool = False) -> Workload:
        """`POST /v1/transfers`: two legs, a kind, no reference or metadata; `hot`: always from one account."""
        body = f'{{"from":"{self._payer(hot=hot)}","to":"{ACCOUNT_PREFIX}<to>","amount":<amount>,"kind":"payment"}}'
        return self._post("/v1/transfers", items=1, item=body, tail="", opening="", idempotency_key=True)

    def qr_payment(self, tokens: Sequence[str], code: str) -> Workload:
        """`POST /payments/merchant/pay` of the owners of the tokens, all at one static QR code."""
        body = f'{{"code":"{code}","idempotency_key":"<key>","amount_cents":<amount>}}'
        caller = msgspec.structs.replace(self, token="<token>")  # noqa: S106 - a placeholder
        workload = caller._post(QR_PATH, items=1, item=body, tail="", opening="")  # noqa: SLF001 - its own
        return msgspec.structs.replace(workload, tokens=tuple(tokens))

    def card_payment(self, tokens: Sequence[str]) -> Workload:
        """`POST /wallet/topup/card` of the owners of the tokens: a payment that is stored and asked for."""
        body = '{"idempotency_key":"<key>","amount_cents":<amount>}'
        caller = msgspec.structs.replace(self, token="<token>")  # noqa: S106 - a placeholder
        workload = caller._post(CARD_PATH, items=1, item=body, tail="", opening="")  # noqa: SLF001 - its own
        return msgspec.structs.replace(workload, tokens=tuple(tokens))

    def p2p_payment(self, tokens: Sequence[str], phone: str, *, traced: bool = False) -> Workload:
        """`POST /wallet/transfer` of the owners of the tokens, all to one phone; `traced`: named by their transfers."""
        body = f'{{"to_phone":"{phone}","idempotency_key":"<key>","amount_cents":<amount>}}'
        caller = msgspec.structs.replace(self, token="<token>")  # noqa: S106 - a placeholder
        workload = caller._post(P2P_PATH, items=1, item=body, tail="", opening="")  # noqa: SLF001 - its own
        name = r'"transfer_id": ?"([^"]+)"' if traced else ""
        return msgspec.structs.replace(workload, tokens=tuple(tokens), name_answered=name)

    def batch(self, items: int) -> Workload:
        """`POST /v1/transfers/batch` of `items` transfers, each with its key; every item's outcome is checked."""
        item = (
            f'{{"key":"<key>","from":"{self._payer(hot=False)}","to":"{ACCOUNT_PREFIX}<to>",'
            '"amount":<amount>,"kind":"payment"}'
        )
        return self._post(
            "/v1/transfers/batch",
            items=items,
            item=item,
            opening='{"transfers":[',
            tail="]}",
            expect=BATCH_ITEM_DONE,
        )

    def past_balance(self, earliest: int, latest: int) -> Workload:
        """`GET` of an account with its balance at a moment between two unix times, uniform over the accounts."""
        head = self._head("GET", f"/v1/accounts/{ACCOUNT_PREFIX}<from>/balance?at=<at>") + "\r\n"
        return Workload(head=head, accounts=self.accounts, earliest=earliest, latest=latest)

    def event(self, *, repeats: float = 0.0, traced: bool = False) -> Workload:
        """`POST /webhooks/stripe`: a signed payment to one of the accounts, each of its own but for the `repeats`.

        `traced`: they are named by their intents.
        """
        workload = self._signed(STRIPE_SECRET, status=200, repeats=repeats)
        return msgspec.structs.replace(workload, name_sent='"(pi_[^"]+)"' if traced else "")

    def forged_event(self) -> Workload:
        """The same with a signature that does not hold."""
        return self._signed(UNKNOWN_SECRET, status=400)

    def _signed(self, secret: str, *, status: int, repeats: float = 0.0) -> Workload:
        event = payment_intent_succeeded(
            f"{ACCOUNT_PREFIX}<to>", event_id="evt_<key>", intent="pi_<key>", currency=CURRENCY.lower()
        )
        body = msgspec.json.encode(event).decode()
        workload = self._post(
            STRIPE_PATH, items=1, item=body, opening="", tail="", headers="Stripe-Signature: <signature>\r\n"
        )
        return msgspec.structs.replace(workload, signing_secret=secret, status=status, repeats=repeats)

    def _payer(self, *, hot: bool) -> str:
        return HOT_ACCOUNT if hot else f"{ACCOUNT_PREFIX}<from>"

    def _head(self, method: str, target: str) -> str:
        return f"{method} {target} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"

    def _post(
        self,
        target: str,
        *,
        items: int,
        item: str,
        opening: str,
        tail: str,
        expect: str = "",
        idempotency_key: bool = False,
        headers: str = "",
    ) -> Workload:
        prefix = f"bench-{secrets.token_hex(6)}-"
        body_size = len(opening) + items * filled_size(item, prefix) + items - 1 + len(tail)
        head = self._head("POST", target)
        if idempotency_key:
            head += "Idempotency-Key: <key>\r\n"
        head += headers
        head += f"Content-Type: application/json\r\nContent-Length: {body_size}\r\n\r\n{opening}"
        return Workload(
            head=head,
            item=item,
            items=items,
            tail=tail,
            expect=expect,
            key_prefix=prefix,
            accounts=self.accounts,
        )


#: Each posted item in the answer of a batch holds this text exactly once.
BATCH_ITEM_DONE = '"outcome":"posted"'


def filled_size(template: str, key_prefix: str) -> int:
    """The bytes of a template once filled in."""
    widths = {**WIDTHS, "key": len(key_prefix) + COUNTER_DIGITS}
    return len(PLACEHOLDER.sub(lambda found: "x" * widths[found.group(1)], template))


def template_pieces(template: str) -> list[tuple[str, str]]:
    """The template as (literal text, name of the placeholder after it) pairs; the last name is empty."""
    parts = PLACEHOLDER.split(template)
    return list(zip(parts[0::2], [*parts[1::2], ""], strict=True))


WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
