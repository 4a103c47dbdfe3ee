# SPDX-License-Identifier: Apache-2.0
"""scripts/quickstart, as the README has it: from a checkout to a web application in a container.

On roots and in a prefix of its own, so that the machine's installed pyrun and its containers are left alone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import leftovers
from cli import Pyrun
from pyrun.runtime.paths import Paths
from requires import requires

pytestmark = [requires(root=True, online=True), pytest.mark.timeout(900)]


class Quickstart(NamedTuple):
    """A checkout, a prefix and the roots that the script works on, and the `pyrun` that it installs."""

    checkout: Path
    prefix: Path
    pyrun: Pyrun

    def __call__(self, port: int) -> subprocess.CompletedProcess[str]:
        """Runs the script to its end."""
        return subprocess.run(
            [self.checkout / "scripts/quickstart", "--prefix", self.prefix, "--port", str(port)],
            env=self.pyrun.environ,
            capture_output=True,
            text=True,
            timeout=800,
        )


@pytest.fixture(scope="module")
def quickstart(checkout_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    """The script on a fresh prefix and fresh roots; at the end nothing may be left of them."""
    prefix = tmp_path_factory.mktemp("prefix")
    base = tmp_path_factory.mktemp("roots")
    script = Quickstart(checkout_copy, prefix, Pyrun(f"{prefix}/bin/pyrun", Paths(f"{base}/data", f"{base}/run")))
    yield script
    assert leftovers.end_instance(script.pyrun) == []


@pytest.fixture(scope="module")
def port() -> int:
    """A port of this machine that is free."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def answer(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as response:
        return str(response.read().decode())


@pytest.fixture(scope="module")
def first_run(quickstart: Quickstart, port: int) -> subprocess.CompletedProcess[str]:
    """The script's first run."""
    return quickstart(port)


def test_prints_what_the_application_answers(first_run: subprocess.CompletedProcess[str]) -> None:
    """The last thing before the advice is the application's own answer."""
    assert first_run.returncode == 0, first_run.stderr
    assert first_run.stdout.splitlines()[0] == "Hello, Docker!"


@pytest.mark.usefixtures("first_run")
def test_application_goes_on_answering(quickstart: Quickstart, port: int) -> None:
    """On localhost, on 127.0.0.1 and on the machine's own address, after the script has ended."""
    own = next(iter(own_addresses()))
    for host in ("localhost", "127.0.0.1", own):
        assert answer(f"http://{host}:{port}/") == "Hello, Docker!"
    shown = quickstart.pyrun.ok("ps", "--format", "{{.Names}} {{.Image}} {{.Ports}}")
    assert shown.startswith("flask-container flask-app")
    assert f":{port}->5000/tcp" in shown


@pytest.mark.usefixtures("first_run")
def test_second_run_makes_nothing_again_and_replaces_the_container(quickstart: Quickstart, port: int) -> None:
    """The images are up to date; flask-container is a new one, on the same port."""
    before = quickstart.pyrun.ok("inspect", "--format", "{{.Id}}", "flask-container")
    again = quickstart(port)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == "Hello, Docker!"
    assert "making" not in again.stderr
    assert "building" not in again.stderr
    assert quickstart.pyrun.ok("inspect", "--format", "{{.Id}}", "flask-container") != before


@pytest.mark.usefixtures("first_run")
def test_taken_port_is_said(quickstart: Quickstart) -> None:
    """A port that a program of the machine listens on: the message has the port and the program."""
    with socket.create_server(("0.0.0.0", 0)) as taken:
        number = taken.getsockname()[1]
        done = quickstart(number)
    assert done.returncode == 1
    assert f"port {number} is taken" in done.stderr
    assert f"pid={os.getpid()}" in done.stderr


def own_addresses() -> Iterator[str]:
    """This machine's IPv4 addresses with global scope, those of container bridges left out."""
    shown = subprocess.run(["ip", "-br", "-4", "addr", "show", "scope", "global"], capture_output=True, text=True)
    for line in shown.stdout.splitlines():
        name, _, *addresses = line.split()
        if not name.startswith(("pyrun", "docker", "br-", "podman", "cni")):
            yield from (address.partition("/")[0] for address in addresses)
