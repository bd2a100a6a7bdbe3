"""The brand of the page: name, logo, help, and a style sheet with the colour, which stays readable."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from core.settings.brand import image_type

# The grounds of `static/pay.css` on which the colour is read as a text, by scheme.
LIGHT: Final = ("#f4f5f7", "#ffffff")
DARK: Final = ("#111417", "#1c2126")
# WCAG 2.2, 1.4.3.
LEAST_CONTRAST: Final = 4.5
_BLACK, _WHITE = "#000000", "#ffffff"
# A colour is mixed with black or white by so many hundredths at a time.
_STEP: Final = 4

_STYLE: Final = """\
:root {{ --accent: {light}; --on-accent: {on_light}; }}
@media (prefers-color-scheme: dark) {{ :root {{ --accent: {dark}; --on-accent: {on_dark}; }} }}
"""


class Image(NamedTuple):
    """An image as it is served."""

    media_type: str
    data: bytes


class Brand(NamedTuple):
    """The operator's name, help address and logo, and the style sheet of the colour."""

    name: str
    help_url: str
    logo: Image | None
    style: bytes


def make_brand(name: str, logo: str, color: str, help_url: str) -> Brand:
    """Return the brand of four settings. The logo is read once. Raises OSError where it has gone meanwhile."""
    image = None
    if logo:
        data = Path(logo).expanduser().read_bytes()
        image = Image(image_type(data) or "application/octet-stream", data)
    return Brand(name, help_url, image, style(color).encode())


def style(color: str) -> str:
    """Return the style sheet of a colour: as it is where it can be read, else darker, or lighter on dark grounds."""
    light, dark = readable(color, LIGHT, _BLACK), readable(color, DARK, _WHITE)
    return _STYLE.format(light=light, on_light=on(light), dark=dark, on_dark=on(dark))


def readable(color: str, grounds: tuple[str, ...], towards: str) -> str:
    """Return the colour nearest to `color` on the way `towards` black or white that can be read on all grounds."""
    for share in range(0, 100, _STEP):
        mixed = _mix(color, towards, share)
        if all(contrast(mixed, ground) >= LEAST_CONTRAST for ground in grounds):
            return mixed
    return towards


def on(color: str) -> str:
    """Return black or white, whichever is read better on a colour."""
    return max((_BLACK, _WHITE), key=lambda text: contrast(text, color))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2.2)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    red, green, blue = (_linear(value / 255) for value in bytes.fromhex(color[1:]))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _mix(color: str, other: str, share: int) -> str:
    pairs = zip(bytes.fromhex(color[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + bytes((mine * (100 - share) + theirs * share) // 100 for mine, theirs in pairs).hex()
