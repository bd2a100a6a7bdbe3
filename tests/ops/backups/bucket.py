"""A bucket that speaks S3, as far as backups use it. It refuses requests whose signature (version 4) is not right."""

import hashlib
import hmac
import itertools
import re
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape, unescape

from aiohttp import web

KEY_ID, SECRET, REGION, NAME = "AKIATALLYSTICK", "a-secret-of-the-tests", "eu-central-1", "books"
_UPLOADS = itertools.count(1)


class Bucket:
    """The objects of one bucket, and of uploads that are not finished."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.uploads = 0
        self.fails_after_parts: int | None = None

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not _signed(request, body):
            return web.Response(status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>")
        bucket, _, key = unquote(request.url.raw_path).lstrip("/").partition("/")
        assert bucket == NAME
        if request.method == "GET" and not key:
            return self._listed(request.query.get("prefix", ""))
        if request.method == "POST":
            return self._deleted(body) if "delete" in request.query else self._upload(request, key)
        if request.method == "PUT":
            return self._put(request, key, body)
        if request.method == "DELETE":
            del self.parts[request.query["uploadId"]]
            return web.Response(status=204)
        return self._got(request, key)

    def _listed(self, prefix: str) -> web.Response:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-31T03:00:00.000Z</LastModified>"
            f'<ETag>"x"</ETag><Size>{len(content)}</Size></Contents>'
            for key, content in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return _xml(f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>")

    def _deleted(self, body: bytes) -> web.Response:
        keys = [unescape(key) for key in re.findall(r"<Key>(.*?)</Key>", body.decode())]
        for key in keys:
            self.objects.pop(key, None)
        rows = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return _xml(f"<DeleteResult>{rows}</DeleteResult>")

    def _upload(self, request: web.Request, key: str) -> web.Response:
        if "uploads" in request.query:
            upload = f"upload-{next(_UPLOADS)}"
            self.parts[upload] = {}
            self.uploads += 1
            return _xml(
                f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
        parts = self.parts.pop(request.query["uploadId"])
        self.objects[key] = b"".join(parts[number] for number in sorted(parts))
        return _xml('<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>')

    def _put(self, request: web.Request, key: str, body: bytes) -> web.Response:
        if "uploadId" not in request.query:
            self.objects[key] = body
            return web.Response(headers={"ETag": '"x"'})
        parts = self.parts[request.query["uploadId"]]
        if self.fails_after_parts is not None and len(parts) >= self.fails_after_parts:
            return web.Response(status=403, text="<Error><Code>QuotaExceeded</Code></Error>")
        parts[int(request.query["partNumber"])] = body
        return web.Response(headers={"ETag": '"x"'})

    def _got(self, request: web.Request, key: str) -> web.Response:
        if key not in self.objects:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": '"x"', "Last-Modified": "Sat, 31 Jan 2026 03:00:00 GMT"}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(self.objects[key]))})
        return web.Response(body=self.objects[key], headers=headers)


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml", headers={"ETag": '"x"'})


def _signed(request: web.Request, body: bytes) -> bool:
    """Whether the request has the signature that its content and the secret make (AWS Signature Version 4)."""
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    if scheme != "AWS4-HMAC-SHA256":
        return False
    told = dict(part.strip().split("=", 1) for part in rest.split(","))
    key_id, scope = told["Credential"].split("/", 1)
    date = scope.split("/")[0]
    digest = request.headers["x-amz-content-sha256"]
    if digest not in {"UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()}:
        return False
    names = told["SignedHeaders"].split(";")
    query = "&".join(
        sorted(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in request.query.items())
    )
    canonical = "\n".join(
        [
            request.method,
            request.url.raw_path,
            query,
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in names),
            "",
            ";".join(names),
            digest,
        ]
    )
    wanted = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            request.headers["x-amz-date"],
            scope,
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    secret = f"AWS4{SECRET}".encode()
    for word in (date, REGION, "s3", "aws4_request"):
        secret = hmac.digest(secret, word.encode(), "sha256")
    return key_id == KEY_ID and hmac.compare_digest(
        hmac.digest(secret, wanted.encode(), "sha256").hex(), told["Signature"]
    )
