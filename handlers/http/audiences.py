"""The parts of the service by the people who use them, and the part of the OpenAPI document that each of them reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

_REF = "#/components/"
_SCHEMES = "securitySchemes"


class Audience(NamedTuple):
    """A part of the service: its name in addresses, its title, its purpose in a sentence, its tags in their order."""

    name: str
    title: str
    about: str
    tags: tuple[str, ...]


AUDIENCES = (
    Audience(
        "ledger",
        "Ledger",
        "Keep books: accounts, transfers, holds, statements and the feed of everything that happened.",
        ("accounts", "transfers", "holds", "closed dates", "feed"),
    ),
    Audience(
        "receive",
        "Receive",
        "Take in webhooks of providers and of senders of your own, and see what became of each.",
        ("webhooks in", "webhook sources", "webhooks received", "dead letters"),
    ),
    Audience(
        "send",
        "Send",
        "Tell your servers what happened: endpoints, deliveries, attempts, sending again.",
        ("webhooks out",),
    ),
    Audience(
        "wallets",
        "Wallets",
        "Let people pay: sign-in, wallets, links, QR codes, requests, invoices, vouchers, cash, refunds.",
        (
            "auth", "kyc", "wallet", "requests", "links", "merchants", "merchant api", "merchant webhooks",
            "invoices", "subscriptions", "cash", "vouchers", "refunds",
        ),
    ),
    Audience(
        "payments",
        "Payments",
        "Take payments through providers, as the services did that came before: merchants' orders, Kaspi, and those of"
        " your own services.",
        ("orders", "kaspi", "orchestration"),
    ),
    Audience(
        "operate",
        "Operate",
        "Run the service: health, metrics, administration, calls of your other services.",
        ("service", "administration", "internal"),
    ),
)  # fmt: skip
BY_NAME = {audience.name: audience for audience in AUDIENCES}


def part(document: dict[str, Any], audience: Audience) -> dict[str, Any]:
    """Return the part of an OpenAPI document that `audience` reads, with the components that it refers to."""
    paths = {}
    for path, operations in document["paths"].items():
        shown = {
            method: operation
            for method, operation in operations.items()
            if {tag.lower() for tag in operation["tags"]} & {*audience.tags}
        }
        if shown:
            paths[path] = shown
    tags = [tag for tag in document["tags"] if tag["name"].lower() in audience.tags]
    tags.sort(key=lambda tag: audience.tags.index(tag["name"].lower()))
    info = document["info"] | {"title": f"{document['info']['title']}: {audience.title}"}
    return document | {
        "info": info,
        "tags": tags,
        "paths": paths,
        "components": _reached(document["components"], paths),
    }


def _reached(components: dict[str, Any], paths: dict[str, Any]) -> dict[str, Any]:
    """Return the components that `paths` refer to, directly or by others."""
    wanted = list(dict.fromkeys(_references(paths)))
    found: dict[str, Any] = {}
    for reference in wanted:  # the list grows while it is read
        kind, name = reference.split("/", 1)
        component = components[kind][name]
        found.setdefault(kind, {})[name] = component
        wanted += [other for other in dict.fromkeys(_references(component)) if other not in wanted]
    proofs = {
        name
        for operations in paths.values()
        for operation in operations.values()
        for proof in operation.get("security", ())
        for name in proof
    }
    schemes = {name: scheme for name, scheme in components.get(_SCHEMES, {}).items() if name in proofs}
    return found | {_SCHEMES: schemes}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_REF):
            yield reference.removeprefix(_REF)
        for member in value.values():
            yield from _references(member)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member)
