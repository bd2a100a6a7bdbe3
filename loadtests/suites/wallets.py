"""People under load: they sign in, pay each other, and look at their wallet far more often than they pay."""

from collections.abc import Mapping

from locust import between

from loadtests.suites.user import Action, LoadUser, new_key

#: The code of every sign-in in development.
CODE = "123456"


def new_phone(user: LoadUser) -> str:
    """Return a phone that hardly anybody has: a run draws some thousands of a hundred million."""
    return f"+9638{user.draw.randrange(10**8):08}"


def sign_in(user: LoadUser) -> None:
    """Come for the first time: ask for a code, and sign in with it, which makes a wallet."""
    phone = new_phone(user)
    sent = user.call("POST /auth/request_otp", body={"phone": phone})
    body = {"phone": phone, "otp": CODE, "session_id": sent["otp_session"]}
    user.call("POST /auth/verify_otp", body=body)


def pay_somebody(user: LoadUser) -> None:
    """Pay another person by phone."""
    payee = next(each for each in user.draw.sample(user.given.people, 2) if each is not user.person)
    body = {
        "to_phone": payee.phone,
        "amount_cents": user.draw.randint(1, 99),
        "idempotency_key": new_key(),
    }
    user.call("POST /wallet/transfer", body=body, token=user.person.token)


def look(user: LoadUser) -> None:
    """Read the balance."""
    user.call("GET /wallet", token=user.person.token)


def read_statement(user: LoadUser) -> None:
    """Read a page of the statement."""
    path = "/wallet/transactions/page?page=1&page_size=20"
    user.call("GET /wallet/transactions/page", path, token=user.person.token)


DECK: Mapping[Action, int] = {sign_in: 1, pay_somebody: 5, look: 8, read_statement: 6}


class Customer(LoadUser):
    """Somebody with the app, who takes a moment between two taps."""

    wait_time = between(0.05, 0.2)
    deck = DECK
