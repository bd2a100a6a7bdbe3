"""The cost of refusing a webhook with a bad signature: `python -m loadtests.refusals [refusals of each kind]`.

The CPU time of the verifiers alone, in this process: no server, no database, no network. Bodies have 2 KB; the headers
are well formed, so that each refusal is the dearest of its kind, with every key tried. An ed25519 signature costs what
the curve costs, about 0.1 ms: the one kind above the aim.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core.inbox.cloudpayments import CloudPaymentsVerifier
from core.inbox.paypal.certificates import Certificates
from core.inbox.paypal.client import Client
from core.inbox.paypal.transmissions import DemoVerifier, OfflineVerifier
from core.inbox.plain_hmac import Scheme
from core.inbox.source_verifiers import SourceVerifier
from core.inbox.sources import Options
from core.inbox.standard_webhooks import new_secret
from core.inbox.stripe import StripeVerifier
from core.inbox.verifying import NotGenuine, Verifier

REFUSALS = 20_000
BUDGET_US = 50.0
BODY = b'{"id":"evt_1","type":"a.b","event_type":"A.B","create_time":"x","resource":{},"padding":"%s"}' % (
    b"x" * 1_950
)
NOW = 1_795_276_800
HOST = "api.sandbox.paypal.com"


class _KnownKey(Certificates):
    """One certificate, fetched long ago."""

    key = generate_private_key(65537, 2048).public_key()

    async def key_at(self, url: str, now: float) -> RSAPublicKey:
        _ = url, now
        return self.key


def cases() -> Mapping[str, tuple[Verifier, dict[str, str]]]:
    """Return each verifier with well-formed headers whose signature is wrong."""
    noise = base64.b64encode(bytes(32)).decode()
    moment = datetime.fromtimestamp(NOW, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    standard = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW)}
    secrets = ["one secret of sixteen", "another one of sixteen"]
    certificates = _KnownKey(Client(), hosts=[HOST], sandbox=True)
    return {
        "stripe, two secrets": (
            StripeVerifier(secrets, 300),
            {"stripe-signature": f"t={NOW},v1={'0' * 64},v1={'1' * 64}"},
        ),
        "paypal, offline": (
            OfflineVerifier("WEBHOOK", certificates),
            {
                "paypal-transmission-id": "1",
                "paypal-transmission-time": moment,
                "paypal-transmission-sig": base64.b64encode(b"\1" * 256).decode(),
                "paypal-cert-url": f"https://{HOST}/v1/notifications/certs/CERT-1",
                "paypal-auth-algo": "SHA256withRSA",
            },
        ),
        "paypal, demo_hmac": (DemoVerifier(secrets[0]), {"x-demo-signature": "0" * 64}),
        "cloudpayments, two secrets": (
            CloudPaymentsVerifier(secrets, "pay"),
            {"content-hmac": noise, "x-content-hmac": noise},
        ),
        "standard webhooks, two secrets": (
            SourceVerifier("s", "standard", Options(), [new_secret(), new_secret()]),
            standard | {"webhook-signature": f"v1,{noise}"},
        ),
        "standard webhooks, ed25519": (
            SourceVerifier("s", "standard_ed25519", Options(), ["whpk_" + base64.b64encode(public).decode()]),
            standard | {"webhook-signature": f"v1a,{base64.b64encode(bytes(64)).decode()}"},
        ),
        "plain hmac, two secrets": (
            SourceVerifier("s", "hmac", Options(signature=Scheme("X-Sign"), event_id=("/id",)), secrets),
            {"x-sign": "0" * 64},
        ),
    }


def refuse(verifier: Verifier, headers: Mapping[str, str]) -> None:
    """Ask once; these verifiers have nothing to wait for, so that no event loop is measured."""
    coroutine = verifier.verify(BODY, headers, NOW)
    try:
        coroutine.send(None)
    except NotGenuine:
        return
    raise AssertionError("a bad signature was believed")


def main() -> None:
    """Print the microseconds of CPU of one refusal of each kind."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else REFUSALS
    print(f"CPU time of one refusal, {number:,} of each; the aim is {BUDGET_US:g} us")
    for name, (verifier, headers) in cases().items():
        refuse(verifier, headers)
        started = time.process_time()
        for _ in range(number):
            refuse(verifier, headers)
        microseconds = (time.process_time() - started) / number * 1e6
        print(f"{name:32} {microseconds:7.1f} us{'  above the aim' if microseconds > BUDGET_US else ''}")


if __name__ == "__main__":
    main()
