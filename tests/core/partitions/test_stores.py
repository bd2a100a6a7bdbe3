"""The archive's places: a bucket over the wire, a folder, and an address that names neither."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from core.errors import Refusal
from core.partitions.stores import PART_BYTES, open_store
from core.settings import SettingsError, load_settings


async def chunks(*given: bytes) -> AsyncIterator[bytes]:
    for chunk in given:
        yield chunk


async def read(found: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in found])


class Storage:
    """As much of S3 as an upload in parts and a download need. Requests without a signature are refused."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[int, bytes] = {}
        self.most_parts = 0
        self.regions: set[str] = set()

    async def handle(self, request: web.Request) -> web.Response:
        scope = request.headers.get("Authorization", "").partition("Credential=")[2].split("/")
        if scope[0] != "key-id" or scope[3:4] != ["s3"]:
            return web.Response(status=403)
        self.regions.add(scope[2])
        body, path = await request.read(), request.path
        if request.method == "POST" and "uploads" in request.query:
            self.most_parts, self.parts = max(self.most_parts, len(self.parts)), {}
            return web.Response(
                text="<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            )
        if request.method == "POST":
            self.objects[path] = b"".join(self.parts[number] for number in sorted(self.parts))
            return web.Response(
                text="<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
            )
        if request.method == "PUT":
            if "partNumber" in request.query:
                self.parts[int(request.query["partNumber"])] = body
            else:
                self.objects[path] = body
            return web.Response(headers={"ETag": '"e"'})
        if path not in self.objects:
            return web.Response(status=404)
        headers = {"ETag": '"e"', "Last-Modified": "Mon, 30 Nov 2026 00:00:00 GMT"}
        return web.Response(body=self.objects[path], headers=headers)


@pytest.mark.usefixtures("authorities")
async def test_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage()
    app = web.Application(client_max_size=PART_BYTES * 4)
    app.router.add_route("*", "/{tail:.*}", storage.handle)
    async with TestServer(app) as server:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key-id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-west-3",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
            "AWS_ALLOW_HTTP": "true",
        }.items():
            monkeypatch.setenv(name, value)
        store = open_store("s3://books/old/rows")
        large = bytes(range(256)) * (PART_BYTES // 128)
        await store.put("e/t/large", chunks(large[:1_000], large[1_000:]))
        await store.put("e/t/small", chunks(b"few"))
        assert await read(store.get("e/t/large")) == large
        assert await read(open_store("s3://books/old/rows/e/t").get("small")) == b"few"
        with pytest.raises(FileNotFoundError):
            await read(store.get("e/t/none"))
    assert set(storage.objects) == {"/books/old/rows/e/t/large", "/books/old/rows/e/t/small"}
    assert storage.most_parts >= 2
    assert storage.regions == {"eu-west-3"}
    assert store.location("e/t/small") == "s3://books/old/rows/e/t/small"


async def test_a_folder(tmp_path: Path) -> None:
    store = open_store((tmp_path / "a ü b").as_uri())
    for data in (b"first", b"second"):
        await store.put("e/t/rows", chunks(data, b"!"))
        assert await read(store.get("e/t/rows")) == data + b"!"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["rows"]
    folder, _, name = store.location("e/t/rows").rpartition("/")
    assert await read(open_store(folder).get(name)) == b"second!"
    with pytest.raises(FileNotFoundError):
        await read(store.get("e/none"))


def test_an_address_that_names_no_archive() -> None:
    for url in (
        "/var/archive",
        "file://host/path",
        "file:///",
        "s3://",
        "https://bucket",
        "s3://a:b@bucket",
        "s3://b?x",
    ):
        with pytest.raises(SettingsError, match="ARCHIVE_URL"):
            load_settings(env_file=None, env="test", archive_url=url)
    with pytest.raises(Refusal, match="ARCHIVE_URL names no archive"):
        open_store("")
