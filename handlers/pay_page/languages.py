"""The languages of the payment page: texts by gettext, amounts and times by CLDR.

English stands in the code and the templates. A file `locale/<language>.po` adds a language: it is read at the start,
offered on every page, and laid out from right to left where the language is written so.
"""

from __future__ import annotations

import io
import re
from copy import copy
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from gettext import GNUTranslations, NullTranslations
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time, get_datetime_format
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.numbers import format_currency, get_currency_symbol
from babel.units import format_unit

from core.money import decimals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from importlib.resources.abc import Traversable
    from pathlib import Path

# English as the world writes it: the day stands before the month.
ENGLISH: Final = Locale("en", "001")
# A browser sends a handful of languages; the rest of a longer header is no wish of a person.
MAX_WISHES: Final = 20
MAX_HEADER_CHARACTERS: Final = 500
_CODE = re.compile(r"[a-z]{2,3}")
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")
_WISH = re.compile(r"([A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*)(?:;q=([01](?:\.[0-9]{0,3})?))?")


def n_(text: str) -> str:
    """Mark a text for the catalogues that is translated where it is shown."""
    return text


# Without its script the page does not know the reader's zone.
_MOMENT: Final = n_("%(moment)s UTC")


@dataclass(frozen=True, eq=False, slots=True)
class Language:
    """One language: its catalogue, and the locale by which amounts and times are written.

    The digits are 0 to 9 in each language, as in the codes and phones beside them: a number with digits of two scripts
    is hard to compare. `core.wallets.amounts` reads digits of every script.
    """

    code: str
    catalogue: NullTranslations
    locale: Locale

    @property
    def direction(self) -> str:
        """The direction of lines: ltr or rtl."""
        return str(self.locale.text_direction)

    @property
    def own_name(self) -> str:
        """The language's name in the language itself."""
        return (self.locale.get_language_name(self.locale.language) or self.code).capitalize()

    @property
    def tag(self) -> str:
        """The language and region as HTML names them (BCP 47)."""
        territory = self.locale.territory
        return self.code if territory in {None, "001"} else f"{self.code}-{territory}"

    def say(self, text: str, **values: Any) -> str:
        """Return the translation of a text, with its values."""
        said = self.catalogue.gettext(text)
        return said % values if values else said

    def amount(self, minor: int, currency: str) -> str:
        """Return minor units as a text for people."""
        return format_currency(
            Decimal(minor).scaleb(-decimals(currency)),
            currency,
            _pattern(self.locale, currency),
            locale=self.locale,
            currency_digits=False,
        )

    def moment(self, when: datetime) -> str:
        """Return a moment in UTC as a text for people."""
        utc = when.astimezone(UTC)
        day, time = format_date(utc, "long", self.locale), format_time(utc, "short", locale=self.locale)
        both = str(get_datetime_format("medium", self.locale)).replace("{1}", day).replace("{0}", time)
        return self.say(_MOMENT, moment=both)

    def wait(self, seconds: int) -> str:
        """Return a time to wait as a text for people."""
        count, unit = (
            (seconds, "duration-second") if seconds < 100 else (-(-seconds // 60), "duration-minute")
        )
        return format_unit(count, unit, "long", locale=self.locale)

    def here(self, region: str | None) -> Language:
        """Return the language as it is written in a region, if CLDR knows that."""
        try:
            return self if region is None else Language(self.code, self.catalogue, Locale(self.code, region))
        except (UnknownLocaleError, ValueError):
            return self


class Languages:
    """All languages of the page, by code; the first is English."""

    def __init__(self, found: Mapping[str, NullTranslations]) -> None:
        self.all = {
            code: Language(code, catalogue, ENGLISH if code == "en" else Locale.parse(code))
            for code, catalogue in {"en": NullTranslations(), **found}.items()
        }

    def chosen(self, code: str, header: str) -> Language:
        """Return the language that a reader chose or, without a choice, the one that the browser asks for.

        `header` is that of Accept-Language (RFC 9110, section 12.5.4). Its region counts for amounts and times.
        """
        wishes = [wish for wish in _wishes(header) if wish[0] in self.all]
        language = code if code in self.all else next((wish for wish, _ in wishes), "en")
        region = next((region for wish, region in wishes if wish == language), None)
        return self.all[language].here(region)


def load_languages(further: Path | None = None) -> Languages:
    """Read every catalogue, those of a `further` folder in the place of ours. Raises ValueError for a bad one.

    Compiled catalogues are never stored, so that none is older than its text.
    """
    folders: list[Traversable] = [resources.files("handlers.pay_page") / "locale"]
    if further is not None:
        folders.append(further)
    found = (file for folder in folders for file in folder.iterdir() if file.name.endswith(".po"))
    files = {file.name.removesuffix(".po"): file for file in found}
    return Languages({code: _compiled(files[code], code) for code in sorted(files)})


def _compiled(file: Traversable, code: str) -> GNUTranslations:
    """Read a catalogue. A text that would break its page, by a placeholder or as markup, is refused at the start."""
    if _CODE.fullmatch(code) is None:
        raise ValueError(f"{file.name}: a catalogue is named by its language, such as fr.po")
    try:
        with file.open("rb") as text:
            catalogue = read_po(text, locale=Locale.parse(code), abort_invalid=True)
    except (PoFileError, UnknownLocaleError, ValueError) as error:
        raise ValueError(f"{file.name}: {error}") from error
    for message in catalogue:
        if message.id and message.string and not _fits(str(message.id), str(message.string)):
            raise ValueError(
                f"{file.name}: the placeholders of {message.id!r} are others, or there is markup"
            )
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return GNUTranslations(compiled)


def _fits(text: str, translation: str) -> bool:
    used = set(_PLACEHOLDER.findall(translation))
    rest = _PLACEHOLDER.sub("", translation)
    return used == set(_PLACEHOLDER.findall(text)) and not any(mark in rest for mark in "%<>&")


def _wishes(header: str) -> list[tuple[str, str | None]]:
    """Return the languages and regions of Accept-Language, the most wanted first."""
    found: list[tuple[float, str, str | None]] = []
    for part in header[:MAX_HEADER_CHARACTERS].split(",")[:MAX_WISHES]:
        wish = _WISH.fullmatch(part.replace(" ", ""))
        if wish is None or (quality := float(wish[2] or 1)) == 0:
            continue
        language, *rest = wish[1].split("-")
        region = next((piece.upper() for piece in rest if len(piece) == 2), None)
        found.append((-quality, language.lower(), region))
    return [(language, region) for _, language, region in sorted(found, key=lambda wish: wish[0])]


def _pattern(locale: Locale, currency: str) -> Any:
    """Return the pattern of amounts with the digits of the ledger's minor unit, whose number CLDR may see otherwise."""
    pattern = copy(locale.currency_formats["standard"])
    places = decimals(currency)
    pattern.frac_prec = (places, places)
    if get_currency_symbol(currency, locale)[-1:].isalpha():
        # A letter does not touch a digit (UTS 35, part 3, currency spacing).
        pattern.prefix = tuple(re.sub("¤$", "¤\u00a0", part) for part in pattern.prefix)
    return pattern
