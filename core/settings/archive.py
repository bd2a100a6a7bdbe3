"""The key of the archive: where rows go before they leave the database."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel

from core.settings.kinds import key


def _archive_url(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        usable = (parts.scheme == "file" and not parts.netloc and len(parts.path) > 1) or (
            parts.scheme == "s3" and bool(parts.hostname) and parts.username is None
        )
        usable = usable and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("file:///a/folder or s3://bucket/prefix")
    return value.rstrip("/")


class Archive(BaseModel):
    """Old rows."""

    archive_url: Annotated[str, AfterValidator(_archive_url)] = key(
        "",
        "Where attempts and audit records go before their time is over: file:///a/folder, or s3://bucket/prefix (then"
        " the credentials, the region and the endpoint are those of AWS_ACCESS_KEY_ID and its like, and the extra s3"
        " is installed). Empty: they are removed without a copy",
    )
