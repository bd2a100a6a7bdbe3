"""The settings of the payment page's brand: what strangers see is checked before anybody sees it."""

from pathlib import Path

import pytest

from core.settings.brand import MAX_LOGO_BYTES
from tests.core.test_settings import defaults, problems

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


@pytest.mark.parametrize(
    ("attribute", "good", "bad"),
    [
        ("brand_name", ["Bank of Aleppo", "مصرف حلب", "A" * 60], ["A" * 61, "a\u202eb", "a\nb", "\u00a0"]),
        ("brand_color", ["#0B57D0", "#ffffff"], ["blue", "#fff", "#0b57d0;}", "0b57d0", "#0b57d0 ", "url(x)"]),
        (
            "brand_help_url",
            ["https://example.com/help", "mailto:help@example.com", "tel:+963111234567"],
            ["http://example.com", "javascript:alert(1)", "https:", "//x", "mailto:", "https://é.example", "https://[x"],
        ),
    ],
)  # fmt: skip
def test_values(attribute: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        assert getattr(defaults().model_validate({"env": "test", attribute: value}), attribute) in {
            value,
            value.lower(),
        }
    for value in bad:
        assert f"{attribute.upper()}=" in problems(**{attribute: value}), value


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (PNG, True),
        (b"\xff\xd8\xff\xe0", True),
        (b"RIFF\x10\0\0\0WEBPVP8 ", True),
        (b'<?xml version="1.0"?>\n<!-- a --><svg xmlns="http://www.w3.org/2000/svg"/>', True),
        (b"<svg>", True),
        (b"<html><svg></svg>", False),
        (b"GIF89a", False),
        (b"", False),
        (PNG + b"\0" * MAX_LOGO_BYTES, False),
    ],
)
def test_logos(data: bytes, fits: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter of the test
    file = tmp_path / "logo"
    file.write_bytes(data)
    if fits:
        assert defaults().model_validate({"env": "test", "brand_logo": str(file)}).brand_logo == str(file)
    else:
        assert "BRAND_LOGO=" in problems(brand_logo=str(file))
    for path in (tmp_path, tmp_path / "none", "\0"):
        assert "256 KiB" in problems(brand_logo=str(path))
