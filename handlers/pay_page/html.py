"""The HTML of the payment page, made by small functions that escape every text that is not HTML already.

The page works without JavaScript and has no script or style inside, so that its content security policy allows none.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final, NamedTuple

from core.money import decimals
from core.wallets.amounts import shown
from handlers.wallets.contract import timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from core.payables.codes import Offer, Receipt

HOME: Final = "/pay"
# The anchor of a trouble, beside its field or at the top of the page.
_PROBLEM_ID: Final = "problem"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


class Trouble(NamedTuple):
    """A sentence for a person about what went wrong, and the field that it is about, None if there is none."""

    sentence: str
    field: str | None = None


class PageForm(NamedTuple):
    """The parts of a form besides its fields: its payable's code, the proof that it is ours, its trouble."""

    code: str
    token: str
    trouble: Trouble | None = None

    def action(self, step: str) -> str:
        """Return the path to which the form of a step is sent."""
        return f"{HOME}/{self.code}/{step}"


def fill(template: str, **values: str | int) -> Html:
    """Return a template with its values, each escaped unless it is Html."""
    escaped = {
        name: value if isinstance(value, Html) else html.escape(str(value)) for name, value in values.items()
    }
    return Html(template.format(**escaped))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/pay/files/pay.css">
<script src="/pay/files/pay.js" defer></script>
</head>
<body>
<main>
<h1>{heading}</h1>
{content}
</main>
</body>
</html>
"""

_PROOF = '<input type="hidden" name="form" value="{token}">'

_CODE = """<form method="get" action="/pay">
<label for="code">Code</label>
<p class="hint" id="code-hint">The text of a QR code or a payment link.</p>
<input id="code" name="code" required maxlength="100" autocomplete="off" autocapitalize="none" spellcheck="false"
 aria-describedby="code-hint">
<button>Continue</button>
</form>
"""

_PHONE = """{trouble}
{offer}
<form method="post" action="{action}">
{token}
<label for="phone">Your phone number</label>
<p class="hint" id="phone-hint">With the country code, such as +963 944 123 456. We send you a code to sign in.</p>
{beside}
<input id="phone" name="phone" type="tel" inputmode="tel" autocomplete="tel" required maxlength="40" value="{phone}"
 {marks}>
<button>Send me a code</button>
</form>
"""

_VERIFY = """{trouble}
{offer}
<p>We sent a code to <bdi>{phone}</bdi>.{hint}</p>
<form method="post" action="{action}">
{token}
<label for="otp">Sign-in code</label>
<p class="hint" id="otp-hint">The digits of the message.</p>
{beside}
<input id="otp" name="otp" inputmode="numeric" autocomplete="one-time-code" required maxlength="20" {marks}>
<button>Sign in</button>
</form>
<form method="post" action="{again}" class="aside">
{token}
<input type="hidden" name="phone" value="{phone}">
<button class="plain">Send another code</button>
<a href="{back}">Use another number</a>
</form>
"""

_CONFIRM = """{trouble}
{offer}
<form method="post" action="{action}">
{token}
<input type="hidden" name="key" value="{key}">
{amount}
<button>{pay}</button>
</form>
<form method="post" action="{sign_out}" class="aside">
{token}
<p>Signed in as <bdi>{phone}</bdi>{balance}.</p>
<button class="plain">Sign out</button>
</form>
"""

_AMOUNT = """<label for="amount">Amount in {currency}</label>
<p class="hint" id="amount-hint">{payee} leaves it to you. {example}</p>
{beside}
<input id="amount" name="amount" inputmode="{keyboard}" autocomplete="off" required maxlength="40" value="{amount}"
 {marks}>"""

_RECEIPT = """<p class="done" role="status">{amount} paid to <bdi>{payee}</bdi>.</p>
<dl>
<dt>To</dt><dd><bdi>{payee}</bdi></dd>
<dt>Amount</dt><dd>{amount}</dd>
<dt>When</dt><dd>{when}</dd>
<dt>Number</dt><dd class="number">{number}</dd>
</dl>
<form method="post" action="{sign_out}" class="aside">
{token}
<p>Keep the number. You may close this page.</p>
<button class="plain">Sign out</button>
</form>
"""


def page(heading: str, content: Html, *, trouble: Trouble | None = None) -> bytes:
    """Return a whole page. The title tells of a trouble, since a screen reader reads the title first."""
    title = f"Error: {heading}" if trouble is not None else heading
    return fill(_PAGE, title=title, heading=heading, content=content).encode()


def code_page() -> bytes:
    """Ask for a code."""
    return page("Pay", Html(_CODE))


def phone_page(offer: Offer, form: PageForm, phone: str = "") -> bytes:
    """Ask for the phone."""
    content = fill(
        _PHONE,
        trouble=_at_top(form.trouble, "phone"),
        offer=_asked(offer),
        action=form.action("phone"),
        token=fill(_PROOF, token=form.token),
        phone=phone,
        beside=_beside("phone", form.trouble),
        marks=_marks("phone", form.trouble),
    )
    return page(_heading(offer), content, trouble=form.trouble)


def verify_page(offer: Offer, form: PageForm, phone: str, dev_code: str | None) -> bytes:
    """Ask for the code that was sent. `dev_code` is the fixed code of a development service, which is no secret."""
    hint = "" if dev_code is None else f" This is a development service: the code is {dev_code}."
    content = fill(
        _VERIFY,
        trouble=_at_top(form.trouble, "otp"),
        offer=_asked(offer),
        action=form.action("verify"),
        again=form.action("phone"),
        back=f"{HOME}/{form.code}",
        token=fill(_PROOF, token=form.token),
        phone=phone,
        hint=hint,
        beside=_beside("otp", form.trouble),
        marks=_marks("otp", form.trouble),
    )
    return page(_heading(offer), content, trouble=form.trouble)


class Payer(NamedTuple):
    """The payer: phone, and money in the wallet in minor units (None: not known at the moment)."""

    phone: str
    balance: int | None
    currency: str


def confirm_page(offer: Offer, form: PageForm, payer: Payer, key: str, amount: str = "") -> bytes:
    """Ask whether to pay, and how much where the code leaves it open. `amount` is the text that the payer typed."""
    field = Html("")
    if offer.amount is None:
        places = decimals(offer.currency)
        field = fill(
            _AMOUNT,
            currency=offer.currency,
            payee=offer.payee,
            example=f"For example 12{'.' + '5'.ljust(places, '0') if places else ''}.",
            keyboard="decimal" if places else "numeric",
            amount=amount,
            beside=_beside("amount", form.trouble),
            marks=_marks("amount", form.trouble),
        )
    content = fill(
        _CONFIRM,
        trouble=_at_top(form.trouble, "amount" if offer.amount is None else None),
        offer=_asked(offer),
        action=form.action("confirm"),
        sign_out=form.action("sign-out"),
        token=fill(_PROOF, token=form.token),
        key=key,
        amount=field,
        pay="Pay" if offer.amount is None else f"Pay {shown(offer.amount, offer.currency)}",
        phone=payer.phone,
        balance="" if payer.balance is None else f", with {shown(payer.balance, payer.currency)}",
    )
    return page(_heading(offer), content, trouble=form.trouble)


def receipt_page(form: PageForm, receipt: Receipt) -> bytes:
    """Show a payment to its payer."""
    content = fill(
        _RECEIPT,
        payee=receipt.payee,
        amount=shown(receipt.amount, receipt.currency),
        when=moment(receipt.paid_at),
        number=str(receipt.transfer_id),
        sign_out=form.action("sign-out"),
        token=fill(_PROOF, token=form.token),
    )
    return page("Paid", content)


_CLOSED: Final = {
    "paid": ("Paid already", "This code has been paid. There is nothing left to pay."),
    "expired": ("Too late", "The time of this code is over. Ask for a new one."),
}


def closed_page(offer: Offer, receipt: str | None) -> bytes:
    """Say that a code can be paid no more. `receipt` is the path of its payer's receipt."""
    heading, sentence = _CLOSED.get(offer.state, ("Withdrawn", "This code was withdrawn. Ask for a new one."))
    link = Html("") if receipt is None else fill('<p><a href="{at}">Your receipt</a></p>', at=receipt)
    return page(
        heading, fill("<p>{sentence}</p>{offer}{link}", sentence=sentence, offer=_asked(offer), link=link)
    )


def trouble_page(heading: str, sentence: str) -> bytes:
    """Say what went wrong on a page without a form."""
    content = fill('<p role="alert">{sentence}</p><p><a href="/pay">Enter a code</a></p>', sentence=sentence)
    return page(heading, content)


def moment(when: datetime) -> Html:
    """Show a moment in UTC; the script writes the reader's own time over it."""
    text = f"{when.day} {when:%B %Y, %H:%M} UTC"
    return fill('<time datetime="{iso}">{text}</time>', iso=timestamp(when), text=text)


def _heading(offer: Offer) -> str:
    return f"Pay {offer.payee}"


def _asked(offer: Offer) -> Html:
    """Show the offer: its text, payee, amount and end."""
    amount = "You say how much" if offer.amount is None else shown(offer.amount, offer.currency)
    rows = [
        ("To", fill("<bdi>{payee}</bdi>", payee=offer.payee)),
        ("Amount", fill("{amount}", amount=amount)),
    ]
    if offer.expires_at is not None and offer.state == "open":
        rows.append(("Until", moment(offer.expires_at)))
    lines = "".join(fill("<dt>{name}</dt><dd>{value}</dd>", name=name, value=value) for name, value in rows)
    return fill("<dl>{rows}</dl>", rows=Html(lines))


def _at_top(trouble: Trouble | None, field: str | None) -> Html:
    """Say a trouble at the top of the page, unless it stands beside the page's `field`."""
    stands_there = trouble is not None and field is not None and trouble.field == field
    return Html("") if trouble is None or stands_there else _told(trouble)


def _beside(field: str, trouble: Trouble | None) -> Html:
    """Say the trouble of a field next to it."""
    return Html("") if trouble is None or trouble.field != field else _told(trouble)


def _told(trouble: Trouble) -> Html:
    template = '<p class="trouble" role="alert" id="{id}">{sentence}</p>'
    return fill(template, id=_PROBLEM_ID, sentence=trouble.sentence)


def _marks(field: str, trouble: Trouble | None) -> Html:
    """Return the attributes of a field: its hint, and its trouble if it has one, which moves the focus to the field."""
    if trouble is not None and trouble.field == field:
        return fill(
            'aria-invalid="true" aria-describedby="{id} {field}-hint" autofocus', field=field, id=_PROBLEM_ID
        )
    return fill('aria-describedby="{field}-hint"', field=field)
