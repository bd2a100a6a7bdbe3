"""Links and requests in Python, with nothing but its standard library: make one, and send the customer to its page.

TALLYSTICK_URL=https://pay.example.com TALLYSTICK_TOKEN=eyJ... python3 payment_link.py 2550
"""

import json
import os
import sys
import urllib.request


class Payments:
    """A client of one signed-in user."""

    def __init__(self, base_url: str, token: str) -> None:
        self.base_url, self.token = base_url.rstrip("/"), token

    def call(self, method: str, path: str, body: dict | None = None) -> dict:
        """Return the JSON of an answer; a refusal raises urllib.error.HTTPError, whose body says why."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base_url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=15) as response:
            return json.load(response)

    def link(self, cents: int | None = None, minutes: int | None = None) -> tuple[str, str]:
        """Make a link over an amount, paid once, or without one. Return its text, and the page on which it is paid."""
        body = {"amount_cents": cents, "expires_in_minutes": minutes}
        text = self.call("POST", "/payments/links", body)["code"]
        return text, f"{self.base_url}/pay/{text.partition('code=')[2]}"


if __name__ == "__main__":
    payments = Payments(os.environ["TALLYSTICK_URL"], os.environ["TALLYSTICK_TOKEN"])
    print(*payments.link(int(sys.argv[1]), minutes=60), sep="\n")
