"""Keys of the payment page: whose service it is. Each value is checked at the start, since strangers see it."""

import re
import unicodedata
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel

from core.settings.kinds import key

MAX_NAME_CHARACTERS: Final = 60
MAX_LOGO_BYTES: Final = 256 * 1024
# The first bytes of each kind of image. WebP has a length between its two marks.
_MARKS: Final = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "image/svg+xml": re.compile(
        rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE[^>[]*>|\s)*<svg[\s>]", re.DOTALL
    ),
}
_LOGO: Final = f"the path of an SVG, PNG, JPEG or WebP file of at most {MAX_LOGO_BYTES // 1024} KiB"


def image_type(data: bytes) -> str | None:
    """Return the media type of an image by its first bytes, None for any other file."""
    return next((kind for kind, mark in _MARKS.items() if mark.match(data[:4_096])), None)


def _name(value: str) -> str:
    plain = all(unicodedata.category(character) not in {"Cc", "Cf"} for character in value)
    if not value.strip() or len(value) > MAX_NAME_CHARACTERS or not plain:
        raise ValueError(f"a name of 1 to {MAX_NAME_CHARACTERS} characters that can be seen")
    return value.strip()


def _color(value: str) -> str:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise ValueError("a colour like #0b57d0")
    return value.lower()


def _logo(value: str) -> str:
    if not value:
        return value
    try:
        path = Path(value).expanduser()
        fits = (
            path.is_file()
            and path.stat().st_size <= MAX_LOGO_BYTES
            and image_type(path.read_bytes()) is not None
        )
    except (OSError, ValueError):
        fits = False
    if not fits:
        raise ValueError(_LOGO)
    return value


def _help(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        place = {"https": parts.hostname, "mailto": parts.path, "tel": parts.path}.get(parts.scheme)
    except ValueError:
        place = None
    if not place or not value.isascii() or not value.isprintable():
        raise ValueError(
            "an address like https://example.com/help, mailto:help@example.com or tel:+963111234567"
        )
    return value


def _folder(value: str) -> str:
    try:
        fits = not value or Path(value).expanduser().is_dir()
    except (OSError, ValueError):
        fits = False
    if not fits:
        raise ValueError("the path of a folder")
    return value


class Brand(BaseModel):
    """The payment page: whose service it is."""

    brand_name: Annotated[str, AfterValidator(_name)] = key(
        "Tallystick",
        f"Name of the service at the head of the payment page, up to {MAX_NAME_CHARACTERS} characters",
    )
    brand_logo: Annotated[str, AfterValidator(_logo)] = key(
        "", f"Logo beside the name: {_LOGO}; the page serves it itself; unset: none"
    )
    brand_color: Annotated[str, AfterValidator(_color)] = key(
        "#0b57d0",
        "Colour of the payment page's buttons and links, as #rrggbb; the page makes it lighter or darker where a text"
        " in it could not be read",
    )
    brand_help_url: Annotated[str, AfterValidator(_help)] = key(
        "", "Where payers get help: an https, mailto or tel address; unset: the page offers none"
    )
    pay_page_cards: bool = key(
        False, "Let codes and links be paid by card on the payment page, through the payment providers"
    )
    brand_languages_dir: Annotated[str, AfterValidator(_folder)] = key(
        "",
        "Folder of further message catalogues of the payment page, one file a language, such as fr.po; an ar.po or"
        " en.po there replaces ours; unset: Arabic and English",
    )
