"""The text of `.env.example`: every key with what it does, its unit, its bounds, its default and its other names."""

from collections.abc import Iterator
from textwrap import wrap

from pydantic.fields import FieldInfo

from core.settings.files import SUFFIX, is_secret
from core.settings.kinds import Secret, bounds_of, extra_of, names_of, text_of
from core.settings.load import GROUPS
from core.settings.retired import RETIRED

_WIDTH = 110
_HEAD = """\
# Settings of Tallystick. Copy to .env and uncomment what should differ; the environment wins over the file.
# An empty value means "unset". Lists are comma separated. Switches take 1/true/yes/on and 0/false/no/off.
# Where a key has several names, the first one that is set counts.
# A secret can stand in a file, as Docker and Kubernetes hand secrets over: NAME_FILE is its path, and NAME is left out.
# Several secrets stand there one a line, or comma separated.
# This file is printed by `python -m core.settings`.
"""


def example() -> str:
    """Return the text of the whole file."""
    blocks = [_HEAD]
    for group in GROUPS:
        title = (group.__doc__ or "").rstrip(".")
        blocks.append(f"# --- {title} ".ljust(_WIDTH, "-") + "\n")
        blocks.extend("\n".join(_lines(name, field)) + "\n" for name, field in group.model_fields.items())
    blocks.append("# --- No longer used ".ljust(_WIDTH, "-") + "\n")
    blocks.extend("\n".join(_comment(f"{', '.join(row.names)}: {row.sentence}.")) + "\n" for row in RETIRED)
    return "\n".join(blocks)


def _lines(attribute: str, field: FieldInfo) -> Iterator[str]:
    name, *others = names_of(attribute, field)
    extra = extra_of(field)
    least, most = bounds_of(field)
    sentences = [f"{field.description}."]
    if extra["unit"]:
        sentences.append(f"Unit: {extra['unit']}.")
    if least is not None and most is not None:
        sentences.append(f"From {least} to {most}.")
    elif most is not None:
        sentences.append(f"Up to {most}.")
    if extra["dev"] is not None:
        sentences.append(f"Default in dev: {_shown(field, extra['dev'])}.")
    if others:
        sentences.append(f"Also read: {', '.join(others)}.")
    if is_secret(field):
        sentences.append(f"In a file: {name}{SUFFIX}.")
    yield from _comment(" ".join(sentences))
    yield f"#{name}={text_of(field.default)}"


def _shown(field: FieldInfo, value: str) -> str:
    return "a placeholder that prod refuses" if field.annotation is Secret else value


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in wrap(text, _WIDTH - 2, break_on_hyphens=False)]
