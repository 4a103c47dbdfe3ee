# SPDX-License-Identifier: Apache-2.0
"""tests/leftovers.py sees what it is there to see: a check that finds nothing because it looks in the wrong place would
pass for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import leftovers
from requires import requires

if TYPE_CHECKING:
    from cli import Pyrun

pytestmark = requires(root=True)


def test_every_trace_of_a_running_container_is_found(pyrun: Pyrun, base_image: str) -> None:
    """A container with a network and a port shows up once under each heading, and under none after `rm`."""
    container = pyrun.ok("run", "-d", "-p", "0:80", base_image, "sleep", "1000")
    found = leftovers.found(pyrun.paths)
    for heading in ("container directory", "running directory", "cgroup", "network link", "lease", "port-map element"):
        assert any(line.startswith(heading) for line in found), f"no {heading} among {found}"
    assert not any(line.startswith("mount") for line in found)
    pyrun.ok("rm", "-f", container)
    leftovers.assert_none(pyrun)


def test_monitor_is_found_by_its_socket(pyrun: Pyrun, base_image: str) -> None:
    """The listener of the socket in the run root is the process that is to be ended with the session."""
    pyrun.ok("run", "--rm", base_image, "true")
    pid = leftovers.listener(f"{pyrun.paths.run}/monitor.sock")
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        assert b"monitor" in file.read()
