# SPDX-License-Identifier: Apache-2.0
"""list, ps, pause, resume, kill and delete of an OCI runtime ($RUNTIME), as containerd and podman call them."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from oci_bundle import IS_PYRUN, Oci
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = requires(root=True)


@pytest.fixture(scope="module")
def rootfs(busybox_tar: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root file system."""
    made = tmp_path_factory.mktemp("rootfs")
    with tarfile.open(busybox_tar) as tar:
        tar.extractall(made)
    return made


@pytest.fixture
def oci(tmp_path: Path, rootfs: Path) -> Iterator[Oci]:
    """The runtime; afterwards its containers are removed."""
    made = Oci(tmp_path, rootfs)
    yield made
    made.end()


def test_list_shows_what_state_shows(oci: Oci) -> None:
    """list --format json has an entry per container, -q the ids, and the table a heading."""
    pid = oci.start("look1", "sleep", "100")
    (found,) = json.loads(oci.ok("list", "--format", "json"))
    assert (found["id"], found["pid"], found["status"], found["owner"]) == ("look1", pid, "running", "root")
    assert oci.ok("list", "-q") == "look1\n"
    heading, line = oci.ok("list").splitlines()
    assert heading.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert line.split()[:3] == ["look1", str(pid), "running"]


def test_list_of_nothing(oci: Oci) -> None:
    """Without a state root there are no containers, and that is no error."""
    assert oci.ok("list", "-q") == ""
    assert not json.loads(oci.ok("list", "--format=json"))


def test_ps_json_and_table(oci: Oci) -> None:
    """ps gives the host's pids, or the lines of the host's ps that have them."""
    pid = oci.start("look2", "sleep", "100")
    assert json.loads(oci.ok("ps", "--format", "json", "look2")) == [pid]
    heading, line = oci.ok("ps", "--format", "table", "look2", "-o", "pid,comm").splitlines()
    assert heading.split()[0] == "PID"
    assert line.split() == [str(pid), "sleep"]
    assert "sleep 100" in oci.ok("ps", "look2")


def test_pause_stops_and_resume_goes_on(oci: Oci) -> None:
    """A paused container is "paused" and nothing in it runs; twice is an error, and so is resuming what runs."""
    pid = oci.start("look3", "sh", "-c", "while :; do :; done")
    assert oci("resume", "look3").code == 1
    oci.ok("pause", "look3")
    assert oci.state("look3")["status"] == "paused"

    def used() -> str:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().split()[13]

    before = used()
    assert oci("pause", "look3").code == 1
    assert used() == before
    oci.ok("resume", "look3")
    assert oci.state("look3")["status"] == "running"


@pytest.mark.parametrize("signal", ["9", "KILL", "SIGKILL", "kill"])
def test_kill_takes_numbers_and_names(oci: Oci, signal: str) -> None:
    """Signals as containerd (a number) and CRI-O (a name) write them; a stopped one says "container not running"."""
    oci.start("look4", "sleep", "100")
    oci.ok("kill", "look4", signal)
    oci.wait("look4", "stopped")
    refused = oci("kill", "look4", "15")
    assert refused.code == 1
    assert "container not running" in refused.err
    oci.ok("kill", "--all", "look4", "9")
    oci.ok("delete", "look4")


def test_kill_of_a_paused_one(oci: Oci) -> None:
    """SIGKILL ends a paused container too, and `delete --force` as well."""
    oci.start("look5", "sleep", "100")
    oci.ok("pause", "look5")
    oci.ok("kill", "look5", "KILL")
    oci.wait("look5", "stopped")
    oci.start("look6", "sleep", "100")
    oci.ok("pause", "look6")
    oci.ok("delete", "--force", "look6")
    assert oci("state", "look6").code == 1


def test_what_is_not_there(oci: Oci) -> None:
    """The words that callers look for; `delete --force` is content."""
    for words in (("state",), ("start",), ("kill",), ("delete",), ("pause",), ("resume",), ("ps",)):
        refused = oci(*words, "nobody")
        assert refused.code == 1
        assert "does not exist" in refused.err
        assert refused.out == ""
    oci.ok("delete", "--force", "nobody")


def test_delete_of_running_needs_force(oci: Oci) -> None:
    """A running container stays; a created one goes."""
    oci.start("look7", "sleep", "100")
    assert oci("delete", "look7").code == 1
    assert oci.state("look7")["status"] == "running"
    oci.create("look8", oci.bundle("true"))
    oci.ok("delete", "look8")


def test_error_in_the_log_is_one_json_object(oci: Oci, tmp_path: Path) -> None:
    """podman reads the whole file as one object; its time has a zone."""
    log = tmp_path / "log.json"
    assert oci("--log", str(log), "--log-format", "json", "state", "nobody").code == 1
    line = json.loads(log.read_text())
    assert line["level"] == "error"
    assert "does not exist" in line["msg"]
    assert ("T" in line["time"] and line["time"][-1:] == "Z") or "+" in line["time"]


@pytest.mark.skipif(not IS_PYRUN, reason="requires pyrun: the lines are its own")
def test_debug_writes_every_step_to_the_log(oci: Oci, tmp_path: Path) -> None:
    """--debug: the steps of the host and of the container, as lines of the level debug."""
    log = tmp_path / "log"
    oci.start("look9", "sleep", "100")
    oci.ok("--debug", "--log", str(log), "pause", "look9")
    assert 'level=debug msg="host: cgroup: echo 1 > ' in log.read_text()
