"""Secrets of endpoints and sources at rest: sealed for their owner, through a rotation of the keys, or readable."""

import time
import uuid
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import settings as search_settings
from hypothesis import strategies as st

from core.errors import Unavailable
from core.inbox import sources
from core.inbox.source_verifiers import SourceVerifiers
from core.outbox import endpoints
from core.vault import PREFIX, Resealed, SealedError, Vault
from tests.core.outbox.office import HERE, Office
from tests.jobs.merchant import Receiver

FIRST, SECOND, OTHER = (letter * 32 for letter in "abc")
BODY = b'{"type":"a.b"}'


async def rests(office: Office) -> list[str]:
    """Return what the database holds of the secrets."""
    rows = await office.sql(
        "SELECT secrets || signing_keys AS texts FROM webhook_endpoints UNION ALL"
        " SELECT array_remove(ARRAY[secret, previous_secret], NULL) FROM inbox_sources"
    )
    return [text for row in rows for text in row["texts"]]


async def reseal(office: Office, vault: Vault) -> list[Resealed]:
    database = office.service.database
    return [await endpoints.reseal(database, vault), await sources.reseal(database, vault)]


class Flow:
    """An endpoint and a source that are used under one set of keys after the other."""

    def __init__(self, office: Office, receiver: Receiver, secret: str) -> None:
        self.office, self.receiver, self.secret = office, receiver, secret

    async def works(self, vault: Vault) -> None:
        office = self.office
        office.vault = vault
        before = len(self.receiver.deliveries)
        await office.emit()
        await office.deliver()
        assert len(self.receiver.deliveries) == before + 1
        self.receiver.verify(self.receiver.deliveries[-1])
        verifier = await SourceVerifiers(office.service.database, vault).get("billing")
        event = await verifier.verify(BODY, signed(self.secret), time.time())
        assert event.event_type == "a.b"


def signed(secret: str) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign("msg_1", now, BODY.decode()),
    }


async def test_keys_come_rotate_and_go(office: Office, receiver: Receiver) -> None:
    database = office.service.database
    # In development without a key everything stands readable.
    made = await office.listen(receiver, signature="v1a")
    _, secret = await sources.create(
        database,
        Vault(),
        principal_id=office.principal_id,
        name="billing",
        kind="standard",
        options=sources.Options(),
    )
    assert made["secret"] in await rests(office)
    flow = Flow(office, receiver, secret)
    await flow.works(Vault())
    # A key is set: what was readable works on, and is sealed by a run over all.
    await flow.works(Vault([FIRST]))
    assert await reseal(office, Vault([FIRST])) == [Resealed(1, 0), Resealed(1, 0)]
    texts = await rests(office)
    assert all(PREFIX in text for text in texts)
    assert not [text for text in texts if made["secret"] in text or secret in text or "whsk_" in text]
    await flow.works(Vault([FIRST]))
    # The public key is shown without any key.
    assert (await office.get(f"/v1/webhook-endpoints/{made['id']}"))["public_key"] == made["public_key"]
    # A new key comes first; then the old one may go.
    await flow.works(Vault([SECOND, FIRST]))
    assert await reseal(office, Vault([SECOND, FIRST])) == [Resealed(1, 0), Resealed(1, 0)]
    await flow.works(Vault([SECOND]))
    # With the wrong keys nothing is sent and nothing is lost.
    office.vault = Vault([OTHER])
    await office.emit()
    await office.deliver()
    (waiting, *_) = await office.deliveries()
    assert waiting["state"] == "failed"
    assert "SECRETS_KEYS" in waiting["last_error"]
    with pytest.raises(Unavailable):
        await SourceVerifiers(database, Vault([OTHER])).get("billing")
    assert await reseal(office, Vault([OTHER])) == [Resealed(0, 1), Resealed(0, 1)]
    await office.post(f"/v1/webhook-deliveries/{waiting['id']}/resend")
    office.vault = Vault([SECOND])
    await office.deliver()
    assert (await office.get(f"/v1/webhook-deliveries/{waiting['id']}"))["delivery"]["state"] == "delivered"


async def test_every_way_of_making_a_secret_seals_it(office: Office) -> None:
    database, vault = office.service.database, Vault([FIRST])
    wanted = endpoints.NewEndpoint("https://shop.example.com/hooks", signature="v1a")
    made, secret = await endpoints.create(
        database, HERE, vault, principal_id=office.principal_id, wanted=wanted
    )
    rotated = await endpoints.rotate_secret(
        database,
        vault,
        principal_id=office.principal_id,
        endpoint_id=made.id,
        secret=None,
        overlap_seconds=60,
    )
    plain, _ = await endpoints.create(
        database, HERE, vault, principal_id=office.principal_id, wanted=wanted._replace(signature="v1")
    )
    changed = await endpoints.update(
        database,
        HERE,
        vault,
        principal_id=office.principal_id,
        endpoint_id=plain.id,
        changes=endpoints.EndpointChanges(signature="v1a"),
    )
    assert (made.public_key, rotated.public_key, changed.public_key) != (None, None, None)
    options = sources.Options()
    source, first = await sources.create(
        database, vault, principal_id=office.principal_id, name="shop", kind="standard", options=options
    )
    _, second = await sources.rotate(
        database,
        vault,
        principal_id=office.principal_id,
        source_id=source.id,
        secret=None,
        overlap_seconds=60,
    )
    texts = await rests(office)
    assert len(texts) == 4 + 2 + 2
    assert all(PREFIX in text for text in texts)
    assert not [text for text in texts for known in (secret, rotated.secret, first, second) if known in text]


async def test_a_secret_is_sealed_for_its_owner(office: Office) -> None:
    """Writing rows is not enough to hand one endpoint the secret of another."""
    vault = Vault([FIRST])
    stored = vault.seal("the secret", "endpoint:1")
    assert vault.open(stored, "endpoint:1") == "the secret"
    for owner, keys in (("endpoint:2", [FIRST]), ("endpoint:1", [OTHER]), ("endpoint:1", [])):
        with pytest.raises(SealedError):
            Vault(keys).open(stored, owner)
    for altered in (
        PREFIX,
        f"{PREFIX}AAAA",
        f"{PREFIX}no base64!",
        stored[:-7],
        stored.replace(PREFIX, f"{PREFIX}AA"),
    ):
        with pytest.raises(SealedError):
            vault.open(altered, "endpoint:1")
    status, problem = await office.call(
        "POST", "/v1/webhook-endpoints", {"url": "https://shop.example.com/", "secret": f"{PREFIX}AAAA"}
    )
    assert (status, problem["error"]["code"]) == (400, "invalid_request")


@search_settings(max_examples=20, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8"), max_size=64).filter(lambda text: not text.startswith(PREFIX))
)
def test_every_text_comes_back(text: str) -> None:
    owner = f"source:{uuid.uuid4()}"
    for vault in (Vault(), Vault([FIRST]), Vault([SECOND, FIRST])):
        assert vault.open(vault.seal(text, owner), owner) == text
