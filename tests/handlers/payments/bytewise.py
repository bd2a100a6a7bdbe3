"""Requests of bytes that no client library sends."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

# Latin-1, half of a surrogate pair, a letter that is cut off, and a letter as it should be.
BYTES = (b"r\xe9q", b"\xed\xa0\x80", b"\xd1", "é".encode())
NAMES = (
    "X-Request-ID", "X-API-Key", "Authorization", "X-Admin-Token", "X-Merchant-Id", "Idempotency-Key",
    "Stripe-Signature", "X-Provider-Signature", "X-Internal-Signature", "Content-Type", "traceparent", "X-Trace-Id",
    "Origin", "X-Forwarded-For",
)  # fmt: skip


async def send(
    client: Any, method: str, target: bytes, headers: Mapping[str, bytes], body: bytes = b""
) -> tuple[int, bytes]:
    """Send a request; return the status of the answer, and the answer as it came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    lines = [b"%s %s HTTP/1.1" % (method.encode(), target), b"Host: localhost", b"Connection: close"]
    lines += [b"%s: %s" % (name.encode(), text) for name, text in headers.items()]
    lines += [b"Content-Length: %d" % len(body)] if method == "POST" else []
    writer.write(b"\r\n".join([*lines, b"", body]))
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


def spoiled(given: Mapping[str, bytes], target: bytes) -> Iterator[tuple[bytes, dict[str, bytes]]]:
    """Yield the target and the headers of a request, each time with some bytes in another place."""
    for text in BYTES:
        for name in NAMES:
            yield target, {**given, name: text}
        escaped = b"".join(b"%%%02X" % byte for byte in text)
        for one in (text, escaped, b"%00"):
            yield target + b"?request_id=" + one + b"&external_id=" + one, dict(given)
            yield target + b"/" + one, dict(given)
