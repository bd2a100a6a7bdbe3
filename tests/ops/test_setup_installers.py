"""A Python without pip: what installs the packages then, and what is said when nothing can."""

import sys
import sysconfig
from pathlib import Path

import pytest

from tests.ops.checkouts import make_checkout, strip_python, wheel

pytestmark = pytest.mark.drill


def test_a_python_without_an_installer_says_which_package_to_install(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path)
    library = strip_python(checkout, "ensurepip")

    refused = checkout.run("version")
    (library / "ensurepip").symlink_to(Path(sysconfig.get_path("stdlib")) / "ensurepip")
    again = checkout.run("version")

    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "has neither pip nor ensurepip" in refused.stderr
    assert (
        f"(Debian, Ubuntu: apt-get install {package}), virtualenv or uv, and run this again" in refused.stderr
    )
    assert "installing" not in refused.stderr
    assert (again.returncode, again.stdout) == (0, "alpha 1.0 version\n"), again.stderr


@pytest.mark.parametrize("tool", ["virtualenv", "uv"])
def test_a_python_without_an_installer_takes_the_one_that_is_on_the_path(tool: str, tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path)
    strip_python(checkout, "ensurepip")
    (checkout.bin / tool).symlink_to(Path(sys.executable).with_name(tool))

    done = checkout.run("version")
    checkout.lock("alpha==2.0 --hash=sha256:" + "0" * 64 + "\n", name="dev")
    wheel(checkout.wheels, "2.0")
    refused = checkout.run("setup", "--dev")
    still = checkout.run("version", PIP_FIND_LINKS="/nonexistent")

    assert (done.returncode, done.stdout) == (0, "alpha 1.0 version\n"), done.stderr
    assert refused.returncode == 1
    assert "hash" in refused.stderr.lower()
    assert (still.returncode, still.stdout, still.stderr) == (0, "alpha 1.0 version\n", "")
