"""The pages: Markdown of docs/ becomes HTML, and the reference of each audience is written as the service shows it."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from handlers.app import SURFACES
from handlers.http import docs, openapi
from handlers.http.audiences import AUDIENCES, part
from ops.site.postman import collection

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
# Pages of the top come first, in the order in which a newcomer needs them; then the folders.
_FIRST: Final = ("README.md", "concepts.md", "ARCHITECTURE.md")
_GROUPS: Final = {"": "Documentation", "tours": "Tours", "adr": "Decisions"}
_LINK: Final = re.compile(r"(?P<page>[^#:]+\.md)(?P<place>#.*)?")
_SCREEN: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self'"
)

_STYLE: Final = """
:root { color-scheme: light dark; --edge: #8884; }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; }
body { display: grid; grid-template-columns: 16rem minmax(0, 52rem); gap: 2rem; }
nav { padding: 1rem; border-right: 1px solid var(--edge); min-height: 100vh; box-sizing: border-box; }
nav h2 { font-size: .8rem; text-transform: uppercase; letter-spacing: .05em; margin: 1.2rem 0 .3rem; }
nav a { display: block; padding: .1rem 0; text-decoration: none; overflow-wrap: anywhere; }
nav a[aria-current] { font-weight: 600; }
main { padding: 1rem 1rem 4rem; min-width: 0; }
pre, table { overflow-x: auto; display: block; }
pre { padding: .8rem; border: 1px solid var(--edge); border-radius: .4rem; font-size: .85rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
th, td { border: 1px solid var(--edge); padding: .25rem .6rem; text-align: left; vertical-align: top; }
table { border-collapse: collapse; }
@media (max-width: 60rem) { body { display: block; } nav { min-height: 0; border: 0; } }
"""

_PAGE: Final = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<title>{{ title }} - Tallystick</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{{ up }}site.css">
</head>
<body>
<nav aria-label="Pages">
{% for group, pages in groups %}<h2>{{ group }}</h2>
{% for name, address in pages %}<a href="{{ up }}{{ address }}"{% if address == here %} aria-current="page"{% endif %}>\
{{ name }}</a>
{% endfor %}{% endfor %}</nav>
<main>
{{ content }}
</main>
</body>
</html>
""")


def build(folder: Path) -> int:
    """Write the site into `folder`, which is emptied; return the number of its pages."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    colours = HtmlFormatter[str](style="default").get_style_defs(".code")
    (folder / "site.css").write_text(_STYLE + colours)
    sources = sorted((ROOT / "docs").rglob("*.md"), key=_place)
    titles = {_relative(source): _title(source.read_text()) for source in sources}
    groups = [*_grouped(titles), ("API", [(each.title, f"api/{each.name}.html") for each in AUDIENCES])]
    for source in sources:
        name = _relative(source)
        address = _address(name)
        target = folder / address
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            _PAGE.render(
                policy=_SCREEN, title=titles[name], up="../" * address.count("/"), here=address, groups=groups,
                content=_Html(_markdown().render(_linked(source.read_text(), name))),
            )
        )  # fmt: skip
    for source in (ROOT / "docs").rglob("*"):
        if source.is_file() and source.suffix != ".md":
            target = folder / _relative(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return len(sources) + _write_reference(folder / "api")


class _Html(str):
    """Text that is HTML already, as Jinja asks for it."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def _write_reference(folder: Path) -> int:
    """Write the page and the document of each audience, the whole document, and the collection."""
    folder.mkdir()
    whole = openapi.document(SURFACES)
    (folder / "openapi.json").write_text(json.dumps(whole, ensure_ascii=False))
    (folder / "postman.json").write_text(json.dumps(collection(whole), ensure_ascii=False, indent=1))
    for name, (path, _) in docs.FILES.items():
        shutil.copyfile(path, folder / name)
    names = [each.name for each in AUDIENCES]
    for audience in AUDIENCES:
        (folder / f"{audience.name}.json").write_text(json.dumps(part(whole, audience), ensure_ascii=False))
        page = docs.page(names, audience.name, "").decode()
        for old, new in (
            ("/docs/", ""),
            (f"/openapi/{audience.name}.json", f"{audience.name}.json"),
            *((f'href="{name}"', f'href="{name}.html"') for name in names),
        ):
            page = page.replace(old, new)
        (folder / f"{audience.name}.html").write_text(page)
    return len(names)


def _place(source: Path) -> tuple[str, int, str]:
    name = _relative(source)
    return (posixpath.dirname(name), _FIRST.index(name) if name in _FIRST else len(_FIRST), name.casefold())


def _relative(source: Path) -> str:
    return source.relative_to(ROOT / "docs").as_posix()


def _address(name: str) -> str:
    return "index.html" if name == "README.md" else name.removesuffix(".md") + ".html"


def _title(text: str) -> str:
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1].replace("`", "") if found else "Tallystick"


def _grouped(titles: dict[str, str]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for folder, group in _GROUPS.items():
        yield (
            group,
            [(title, _address(name)) for name, title in titles.items() if posixpath.dirname(name) == folder],
        )


def _linked(text: str, name: str) -> str:
    """Let links between pages lead to their HTML. Files outside of docs/ are not in the site, so their links go."""

    def follow(match: re.Match[str]) -> str:
        words, target = match["words"], match["target"]
        if "://" in target or target.startswith("#"):
            return match[0]
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), target.partition("#")[0]))
        if inside in {"adr", "tours"}:
            return words
        if inside.startswith("..") or not (ROOT / "docs" / inside).exists():
            return words
        if (found := _LINK.fullmatch(target)) is None:
            return match[0]
        folder, page = posixpath.split(found["page"])
        return f"[{words}]({posixpath.join(folder, _address(page))}{found['place'] or ''})"

    return re.sub(r"(?<!!)\[(?P<words>[^\]]+)\]\((?P<target>[^)\s]+)\)", follow, text)


def _markdown() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"highlight": _coloured}).enable("table")

    def heading(self: Any, tokens: Any, index: int, options: Any, environment: Any) -> str:
        words = tokens[index + 1].content
        anchor = re.sub(r"[^\w\- ]", "", words.casefold()).replace(" ", "-")
        tokens[index].attrSet("id", anchor)
        return str(self.renderToken(tokens, index, options, environment))

    reader.add_render_rule("heading_open", heading)
    return reader


def _coloured(code: str, language: str, _attributes: str) -> str:
    try:
        lexer = get_lexer_by_name(language or "text")
    except ClassNotFound:
        return escape(code)
    return str(highlight(code, lexer, HtmlFormatter[str](nowrap=True)))
