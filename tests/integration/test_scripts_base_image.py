# SPDX-License-Identifier: Apache-2.0
"""scripts/base-image: the images that it makes do what people expect of images with these names."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from requires import requires

if TYPE_CHECKING:
    from cli import Pyrun

pytestmark = [requires(root=True, online=True), pytest.mark.timeout(600)]

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts/base-image"


def base_image_script(pyrun: Pyrun, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs the script with this `pyrun` on its roots."""
    environ = {**pyrun.environ, "PYRUN": pyrun.command}
    return subprocess.run([SCRIPT, *args], env=environ, capture_output=True, text=True)


def test_an_image_that_is_up_to_date_is_left_alone(pyrun: Pyrun) -> None:
    """The second call imports nothing: the image keeps its id."""
    first = base_image_script(pyrun, "busybox")
    assert first.returncode == 0, first.stderr
    made = pyrun.ok("images", "-q", "--no-trunc", "busybox")
    again = base_image_script(pyrun, "busybox")
    assert again.returncode == 0, again.stderr
    assert "up to date" in again.stderr
    assert pyrun.ok("images", "-q", "--no-trunc", "busybox") == made


@pytest.mark.parametrize(("args", "why"), [(("alpine",), "'alpine'"), (("--suite", "../x"), "'../x'")])
def test_what_it_cannot_make_is_refused(pyrun: Pyrun, args: tuple[str, ...], why: str) -> None:
    """An unknown name and an odd suite are named; nothing is made."""
    done = base_image_script(pyrun, *args)
    assert done.returncode == 1
    assert why in done.stderr
    assert done.stdout == ""


def test_python_is_called_python_and_pip_may_install(pyrun: Pyrun, python_image: str) -> None:
    """As in the well-known python:slim: `python` and `pip` are there, and pip does not leave Python to Debian."""
    assert pyrun.ok("run", "--rm", python_image, "python", "-c", "print(6 * 7)") == "42"
    folder = pyrun.ok(
        "run", "--rm", python_image, "python", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"
    )
    marker = pyrun("run", "--rm", python_image, "test", "-e", f"{folder}/EXTERNALLY-MANAGED")
    assert (marker.rc, marker.err) == (1, "")
    assert pyrun("run", "--rm", python_image, "pip", "--version").out.startswith("pip ")


def test_trusts_whom_this_machine_trusts(pyrun: Pyrun, python_image: str) -> None:
    """The bundle of authorities is this machine's, and Python's ssl module and pip use it."""
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    inside = pyrun.ok("run", "--rm", python_image, "sha256sum", bundle).split()[0]
    assert subprocess.run(["sha256sum", bundle], capture_output=True, text=True).stdout.split()[0] == inside
    ssl = "import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 50)"
    assert pyrun.ok("run", "--rm", python_image, "python", "-c", ssl) == "True"
    assert f"global.cert='{bundle}'" in pyrun.ok("run", "--rm", python_image, "pip", "config", "list")


def test_nothing_of_the_build_is_left(pyrun: Pyrun, python_image: str) -> None:
    """No package lists, no caches, no logs, no name of the machine that made it."""
    find = ("find", "/var/lib/apt/lists", "/var/cache", "/var/log", "-type", "f", "-size", "+0")
    assert pyrun.ok("run", "--rm", python_image, *find) == ""
    assert pyrun.ok("run", "--rm", "--hostname", "box", python_image, "cat", "/etc/hostname") == "box"


@pytest.fixture(scope="module")
def node_image(session_pyrun: Pyrun) -> str:
    """The name of a stand-in for one of node's images."""
    done = base_image_script(session_pyrun, "node:alpine")
    assert done.returncode == 0, done.stderr
    assert "a stand-in: the Node.js of Debian" in done.stderr
    return "node:alpine"


def test_a_stand_in_has_the_name_and_says_what_it_is(pyrun: Pyrun, node_image: str) -> None:
    """node:alpine is there under its name, and its label tells what it really is."""
    label = pyrun.ok("image", "inspect", "--format", '{{index .Config.Labels "pyrun.stand-in"}}', node_image)
    assert label == "a stand-in: the Node.js of Debian bookworm, not the image node:alpine"
    assert pyrun.ok("run", "--rm", node_image, "node", "-e", "console.log(6 * 7)") == "42"


def test_npm_installs_in_a_stand_in(pyrun: Pyrun, node_image: str) -> None:
    """npm is there as in node's own images, and reaches the registry that this machine uses."""
    script = "cd /tmp && npm install --silent left-pad && node -p 'require(\"left-pad\")(7, 3, 0)'"
    assert pyrun.ok("run", "--rm", node_image, "sh", "-c", script) == "007"


def test_a_stand_in_has_what_dockerfiles_count_on(pyrun: Pyrun, node_image: str, python_image: str) -> None:
    """node's images have yarn and the user node (1000); python's make virtual environments."""
    assert (
        pyrun.ok("run", "--rm", "--user", "node", node_image, "sh", "-c", "id -u; id -g; echo ~")
        == "1000\n1000\n/home/node"
    )
    assert pyrun.ok("run", "--rm", node_image, "yarn", "--version").startswith("1.")
    made = pyrun.ok("run", "--rm", python_image, "sh", "-c", "python -m venv /v && /v/bin/pip --version")
    assert "from /v/lib/" in made
