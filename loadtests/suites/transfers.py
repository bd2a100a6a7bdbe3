"""The ledger under load: single transfers above all, and what programs ask beside them."""

from collections.abc import Mapping

from loadtests.suites.user import Action, LoadUser, new_key

#: Transfers of one batch.
BATCH_ITEMS = 50
POSTED = '"outcome":"posted"'


def _two_accounts(user: LoadUser) -> tuple[str, str]:
    one, other = user.draw.sample(user.given.accounts, 2)
    return one, other


def pay(user: LoadUser) -> None:
    """Post one transfer of two legs."""
    payer, payee = _two_accounts(user)
    body = {"from": payer, "to": payee, "amount": user.draw.randint(1, 999), "kind": "payment"}
    user.v1("POST /v1/transfers", body=body)


def pay_many(user: LoadUser) -> None:
    """Post a batch, each item with a key of its own."""
    items = []
    for _ in range(BATCH_ITEMS):
        payer, payee = _two_accounts(user)
        items.append({"key": new_key(), "from": payer, "to": payee, "amount": user.draw.randint(1, 999)})
    user.v1("POST /v1/transfers/batch", body={"transfers": items}, expect=POSTED, times=BATCH_ITEMS)


def look(user: LoadUser) -> None:
    """Read a balance."""
    user.v1("GET /v1/accounts/{code}", f"/v1/accounts/{user.draw.choice(user.given.accounts)}")


def read_statement(user: LoadUser) -> None:
    """Read the newest lines of an account."""
    code = user.draw.choice(user.given.accounts)
    user.v1("GET /v1/accounts/{code}/entries", f"/v1/accounts/{code}/entries?limit=50")


def set_aside(user: LoadUser) -> None:
    """Hold an amount, then capture a part."""
    payer, payee = _two_accounts(user)
    amount = user.draw.randint(2, 999)
    hold = user.v1("POST /v1/holds", body={"from": payer, "to": payee, "amount": amount, "expires_in": 3600})
    user.v1("POST /v1/holds/{id}/capture", f"/v1/holds/{hold['id']}/capture", {"amount": amount // 2})


DECK: Mapping[Action, int] = {pay: 12, pay_many: 1, look: 4, read_statement: 2, set_aside: 1}


class Program(LoadUser):
    """A program with an API key."""

    deck = DECK
