"""The site: the templates in every language, under the brand of the settings. One for each application.

Jinja escapes every value that is not markup already. A template has no script or style inside, so that the content
security policy allows none, and each of its texts goes through the catalogues.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from handlers.wallets.contract import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.pay_page.brand import Brand
    from handlers.pay_page.languages import Language, Languages

HOME: Final = "/pay"
# First strong isolate and pop directional isolate (UAX 9): the <bdi> of a text without markup.
_ISOLATE: Final = ("\u2068", "\u2069")


class Site:
    """The pages of one application."""

    def __init__(self, brand: Brand, languages: Languages) -> None:
        self.brand = brand
        self.languages = languages
        self._environments = {code: _environment(language) for code, language in languages.all.items()}

    def page(self, template: str, language: Language, switches: Mapping[str, str], **values: Any) -> bytes:
        """Return a page in a language. `switches` are its addresses in each of the languages, by code."""
        made = self._environments[language.code].get_template(template)
        common = {"language": language, "languages": self.languages.all.values(), "brand": self.brand}
        return made.render({"trouble": None, "switches": switches} | common | values).encode()


def _environment(language: Language) -> Environment:
    environment = Environment(
        loader=PackageLoader("handlers.pay_page"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.install_gettext_translations(language.catalogue, newstyle=True)  # type: ignore[attr-defined]
    environment.filters |= {"iso": timestamp, "in_title": _in_title}
    return environment


def _in_title(heading: Markup) -> str:
    """Return a heading as a text without markup, its names isolated by characters."""
    first, last = _ISOLATE
    return Markup(re.sub(r"</bdi>", last, re.sub(r"<bdi[^>]*>", first, heading))).striptags()  # noqa: S704
