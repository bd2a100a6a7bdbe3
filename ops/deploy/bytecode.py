"""Write the byte code of our modules and of those that they import, in the Dockerfile's last stage.

The service may not write to its own sources. Byte code of modules that nobody imports would be half of the image.
"""

import importlib
import pkgutil
from contextlib import suppress

PACKAGES = ("core", "handlers", "jobs", "ops", "sql")


def main() -> None:
    """Import every module of ours, but for those that need what is not in the image, such as the benchmark."""
    for package in PACKAGES:
        found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        for module in sorted(each.name for each in found):
            if not module.endswith("__main__"):
                with suppress(ModuleNotFoundError):
                    importlib.import_module(module)


if __name__ == "__main__":
    main()
