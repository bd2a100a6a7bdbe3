"""Bad input: each kind is a 4xx with a stable code and a sentence that helps; nothing runs, no key is used up."""

from datetime import UTC, datetime

from multidict import CIMultiDict

from tests.handlers.conftest import GOOD, ApiKey, Seen, SmallApi, headers, problem

BAD_BODIES: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "malformed_json", "no body"),
    "not JSON": (b"amount=5", "malformed_json", "not valid JSON"),
    "cut short": (b'{"amount":5', "malformed_json", "not valid JSON"),
    "trailing text": (GOOD + b"x", "malformed_json", "not valid JSON"),
    "trailing zero byte": (GOOD + b"\0", "malformed_json", "not valid JSON"),
    "trailing comma": (b'{"amount":5,}', "malformed_json", "not valid JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, "malformed_json", "BOM"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "malformed_json", "UTF-8"),
    "Latin-1": ('{"amount":5,"reference":"é"}'.encode("latin-1"), "malformed_json", "UTF-8"),
    "overlong UTF-8": (b'{"amount":5,"reference":"\xc0\xaf"}', "malformed_json", "UTF-8"),
    "NaN": (b'{"amount":NaN}', "malformed_json", "not valid JSON"),
    "Infinity": (b'{"amount":5,"metadata":{"a":-Infinity}}', "malformed_json", "not valid JSON"),
    "beyond a double": (b'{"amount":1e999}', "malformed_json", "infinity"),
    "lone surrogate": (rb'{"amount":5,"reference":"\ud800"}', "malformed_json", "surrogate"),
    "33 levels": (
        b'{"amount":5,"metadata":{"a":' + b"[" * 31 + b"1" + b"]" * 31 + b"}}",
        "malformed_json",
        "32 levels",
    ),
    "1,000 levels": (
        b'{"amount":5,"metadata":' + b"[" * 1000 + b"]" * 1000 + b"}",
        "malformed_json",
        "32 levels",
    ),
    "100,000 levels": (b"[" * 100_000, "malformed_json", "32 levels"),
    "duplicate key": (b'{"amount":5,"amount":6}', "duplicate_json_key", '"amount"'),
    "deep duplicate key": (b'{"amount":5,"metadata":{"a":[{"b":1,"b":1}]}}', "duplicate_json_key", '"b"'),
    "escaped duplicate key": (rb'{"amount":5,"\u0061mount":6}', "duplicate_json_key", '"amount"'),
    "hidden duplicate key": (
        rb'{"amount":5,"amount":6,"reference":"\u003a"}',
        "duplicate_json_key",
        '"amount"',
    ),
    "null": (b"null", "invalid_request", "expected an object, got null"),
    "list": (b"[]", "invalid_request", "expected an object, got a list"),
    "text": (b'"amount"', "invalid_request", "expected an object, got a text"),
    "missing field": (b"{}", "invalid_request", "`amount`"),
    "unknown field": (b'{"amount":5,"amuont":5}', "invalid_request", "`amuont`"),
    "unknown field in a leg": (b'{"amount":5,"legs":[{"acount":1}]}', "invalid_request", "$.legs[0]"),
    "amount: text": (b'{"amount":"5"}', "invalid_request", "$.amount: expected an integer, got a text"),
    "amount: 5.0": (
        b'{"amount":5.0}',
        "invalid_request",
        "$.amount: the amount must be an integer in the minor unit",
    ),
    "amount: 5e0": (b'{"amount":5e0}', "invalid_request", "an integer in the minor unit"),
    "amount: true": (b'{"amount":true}', "invalid_request", "expected an integer, got true or false"),
    "amount: null": (b'{"amount":null}', "invalid_request", "expected an integer, got null"),
    "amount: zero": (b'{"amount":0}', "invalid_request", "expected an integer >= 1"),
    "amount: negative": (b'{"amount":-5}', "invalid_request", "expected an integer >= 1"),
    "amount: 2^62": (b'{"amount":%d}' % 2**62, "invalid_request", "expected an integer <= "),
    "amount: 2^64": (b'{"amount":%d}' % 2**64, "invalid_request", "$.amount"),
    "amount: 40 digits": (b'{"amount":%s}' % (b"9" * 40), "invalid_request", "$.amount"),
    "amount: 5,000 digits": (b'{"amount":%s}' % (b"9" * 5_000), "malformed_json", "infinity"),
    "second leg": (
        b'{"amount":5,"legs":[{"account":"a","amount":1},{"account":"b","amount":1.5}]}',
        "invalid_request",
        "$.legs[1].amount: the amount must be an integer",
    ),
    "too many legs": (
        b'{"amount":5,"legs":[%s]}' % b",".join([b'{"account":"a","amount":1}'] * 6),
        "invalid_request",
        "expected a list of length <= 5",
    ),
    "text too long": (
        b'{"amount":5,"reference":"%s"}' % (b"a" * 65),
        "invalid_request",
        "a text of length <= 64",
    ),
    "empty code": (
        b'{"amount":5,"legs":[{"account":"","amount":1}]}',
        "invalid_request",
        "$.legs[0].account",
    ),
    "date without offset": (
        b'{"amount":5,"effective_at":"2026-01-01T00:00:00"}',
        "invalid_request",
        "effective_at",
    ),
    "no date": (b'{"amount":5,"effective_at":"2026-02-30T00:00:00Z"}', "invalid_request", "effective_at"),
    "NUL": (
        rb'{"amount":5,"reference":"a\u0000b"}',
        "invalid_request",
        "$.reference holds the control character U+0000",
    ),
    "raw control": (b'{"amount":5,"reference":"a\x01b"}', "malformed_json", "control character"),
    "line break": (rb'{"amount":5,"reference":"a\nb"}', "invalid_request", "U+000A"),
    "DEL": (b'{"amount":5,"reference":"\x7f"}', "invalid_request", "U+007F"),
    "C1": ('{"amount":5,"reference":"\x85"}'.encode(), "invalid_request", "U+0085"),
    "control in metadata": (
        rb'{"amount":5,"metadata":{"a":["x",{"b":"\t"}]}}',
        "invalid_request",
        "$.metadata.a[1].b",
    ),
    "control in a key": (rb'{"amount":5,"metadata":{"\u0007":1}}', "invalid_request", "A key of $.metadata"),
}


async def test_bad_bodies_are_refused_and_do_not_use_the_key_up(
    small: SmallApi, seen: Seen, key: str
) -> None:
    for name, (body, code, says) in BAD_BODIES.items():
        found = await problem(await small.post("/v1/things", data=body, headers=headers(key)), 400, code)
        assert says in found["detail"], name
    assert not seen.calls
    response = await small.post("/v1/things", data=GOOD, headers=headers(key))
    assert (response.status, await response.json()) == (201, {"id": 1, "amount": 5})
    assert len(seen.calls) == 1


UNUSUAL_BODIES = (
    b'{"amount":5,"reference":"a:b \\"c\\" \\\\n \\/ {[,]}"}',
    '{"amount":5,"reference":"é € 😀 \u00a0 ж"}'.encode(),
    rb'{"amount":5,"reference":"\u00e9 \ud83d\ude00 \u003a"}',
    b'{"amount":5,"metadata":{"a":' + b"[" * 30 + b"1" + b"]" * 30 + b"}}",
    b' {\n\t"amount" : 5 } ',
    b'{"amount":5,"effective_at":"2026-01-01T00:00:00+05:00"}',
    b'{"amount":5,"metadata":{"a":1.5,"b":-0.0,"c":12345678901234567890}}',
)


async def test_unusual_but_good_bodies(small: SmallApi, seen: Seen, key: str) -> None:
    for number, body in enumerate(UNUSUAL_BODIES):
        sent = headers(key, **{"Idempotency-Key": f"k-{number}"})
        assert (await small.post("/v1/things", data=body, headers=sent)).status == 201, body
        assert seen.calls[-1].raw == body


async def test_other_media_types(small: SmallApi, seen: Seen, key: str) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", "a", ""):
        sent = headers(key, **{"Content-Type": media_type})
        await problem(await small.post("/v1/things", data=GOOD, headers=sent), 415, "unsupported_media_type")
    sent = headers(key, **{"Content-Type": "application/json; charset=latin1"})
    await problem(await small.post("/v1/things", data=GOOD, headers=sent), 415, "unsupported_media_type")
    assert not seen.calls


async def test_accepted_media_types(small: SmallApi, key: str) -> None:
    for media_type in ("application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', None):
        sent = headers(key)
        del sent["Content-Type"]
        if media_type is not None:
            sent["Content-Type"] = media_type
        response = await small.post("/v1/things", data=GOOD, headers=sent, skip_auto_headers=["Content-Type"])
        assert response.status == 201


async def test_unwanted_body(small: SmallApi, seen: Seen, key: str) -> None:
    response = await small.request("GET", "/v1/things", data=GOOD, headers=headers(key))
    await problem(response, 400, "invalid_request")
    assert not seen.calls


async def test_body_that_may_be_left_out(small: SmallApi) -> None:
    response = await small.post("/v1/names/x")
    assert (response.status, await response.json()) == (200, "none")


BAD_QUERIES = {
    "limit=0": "query parameter limit: expected an integer >= 1",
    "limit=101": "expected an integer <= 100",
    "limit=x": "query parameter limit: expected an integer, got a text",
    "limit=": "limit",
    "limit=5&limit=5": "more than once",
    "limt=5": '"limt" is not known. Known: all, limit',
    "limit=" + "9" * 5_000: "limit",
    "reference=a%00b": "U+0000",
    "reference=" + "a" * 65: "a text of length <= 64",
}


async def test_bad_queries(small: SmallApi, seen: Seen, key: str) -> None:
    for query, says in BAD_QUERIES.items():
        found = await problem(
            await small.get(f"/v1/things?{query}", headers=headers(key)), 400, "invalid_request"
        )
        assert says in found["detail"]
    assert not seen.calls


async def test_queries_that_a_lax_reader_would_take(small: SmallApi, seen: Seen, key: str) -> None:
    for query in (
        "limit=5.0",
        "limit=05",
        "limit=+5",
        "limit= 5",
        "limit=null",
        "since=null",
        "since=0.5",
        "all=1",
    ):
        await problem(await small.get(f"/v1/things?{query}", headers=headers(key)), 400, "invalid_request")
    assert not seen.calls


async def test_query_of_an_operation_that_takes_none(small: SmallApi, key: str) -> None:
    response = await small.post("/v1/things?dry_run=true", data=GOOD, headers=headers(key))
    await problem(response, 400, "invalid_request")


async def test_good_query(small: SmallApi, seen: Seen, key: str) -> None:
    query = "limit=7&reference=null&since=2026-01-01T00:00:00Z&all=true"
    assert (await small.get(f"/v1/things?{query}", headers=headers(key))).status == 200
    found = seen.calls[0].query
    assert (found.limit, found.reference, found.since, found.all) == (
        7,
        "null",
        datetime(2026, 1, 1, tzinfo=UTC),
        True,
    )


async def test_bad_path_values(small: SmallApi, seen: Seen, key: str) -> None:
    for value in ("1", "no-uuid", "%00", "0193e5a0-7b1c-7d3e-9f00-1234567890ag", "%F0%9F", "a" * 300):
        found = await problem(
            await small.get(f"/v1/things/{value}", headers=headers(key)), 400, "invalid_request"
        )
        assert "thing in the path" in found["detail"]
    await problem(await small.post("/v1/names/a%0Ab"), 400, "invalid_request")
    await problem(await small.post("/v1/names/" + "a" * 256), 400, "invalid_request")
    assert not seen.calls
    assert (await small.post("/v1/names/" + "a" * 255)).status == 200


async def test_unknown_callers(small: SmallApi, seen: Seen) -> None:
    for authorization in (
        None,
        "Bearer ",
        "Bearer x",
        "Bearer tsk_aaaaaaaaaaaa_" + "A" * 43,
        "Bearer é",
        "Basic dXM6cHc=",
    ):
        sent = {"Idempotency-Key": "k"} | (
            {"Authorization": authorization} if authorization is not None else {}
        )
        response = await small.post("/v1/things", data=GOOD, headers=sent)
        await problem(response, 401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert not seen.calls


async def test_scope_is_checked_before_the_body(small: SmallApi, seen: Seen, api_key: ApiKey) -> None:
    reader_only = await api_key("transfers:read")
    found = await problem(
        await small.post("/v1/things", data=b"rubbish", headers=headers(reader_only)), 403, "forbidden"
    )
    assert "transfers:write" in found["detail"]
    assert not seen.calls


async def test_both_ways_to_send_the_key(small: SmallApi, key: str) -> None:
    for sent in ({"X-API-Key": key}, {"Authorization": f"bearer {key}"}):
        assert (await small.get("/v1/things", headers=sent)).status == 200


async def test_bad_idempotency_keys(small: SmallApi, seen: Seen, key: str) -> None:
    for given in ((), ("",), ("k" * 256,), ("é",), ("a", "b")):
        sent = CIMultiDict({"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
        for value in given:
            sent.add("Idempotency-Key", value)
        code = "idempotency_key_invalid" if given else "idempotency_key_required"
        await problem(await small.post("/v1/things", data=GOOD, headers=sent), 400, code)
    assert not seen.calls


async def test_longest_idempotency_key(small: SmallApi, seen: Seen, key: str) -> None:
    sent = headers(key, **{"Idempotency-Key": "k" * 255})
    assert (await small.post("/v1/things", data=GOOD, headers=sent)).status == 201
    assert seen.calls[0].idempotency_key == "k" * 255
