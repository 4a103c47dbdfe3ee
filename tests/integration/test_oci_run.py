# SPDX-License-Identifier: Apache-2.0
"""run, update and events of an OCI runtime ($RUNTIME)."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oci_bundle import IS_PYRUN, Oci
from pyrun.cgroups import mount
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def cgroup(oci: Oci, container_id: str) -> Path:
    """The directory of the container's cgroup."""
    return Path(mount.find().directory(mount.own_path(oci.state(container_id)["pid"])))


def test_run_in_the_foreground(oci: Oci) -> None:
    """The program has our streams, its exit code is ours, and nothing is left."""
    bundle = oci.bundle("sh", "-c", "cat; exit 5")
    done = oci("run", "--bundle", str(bundle), "--pid-file", str(bundle / "pid"), "run1", stdin="typed\n")
    assert (done.code, done.out, done.err) == (5, "typed\n", "")
    assert (bundle / "pid").read_text().isdecimal()
    assert oci.ok("list", "-q") == ""


def test_run_detached(oci: Oci) -> None:
    """--detach returns when the container runs."""
    oci.made.append("run2")
    null = subprocess.DEVNULL
    words = oci.words("run", "--detach", "--bundle", str(oci.bundle("sleep", "100")), "run2")
    assert subprocess.run(words, stdin=null, stdout=null, stderr=null, timeout=60, check=False).returncode == 0
    assert oci.state("run2")["status"] == "running"


@pytest.mark.skipif(not IS_PYRUN, reason="requires pyrun: runc 1.1.5 has no such flag")
def test_run_keep(oci: Oci) -> None:
    """--keep leaves the stopped container, for state and delete."""
    oci.made.append("run3")
    assert oci("run", "--keep", "--bundle", str(oci.bundle("true")), "run3").code == 0
    assert oci.state("run3")["status"] == "stopped"
    oci.ok("delete", "run3")


def test_run_of_what_is_not_there(oci: Oci) -> None:
    """Its own failure is 1, or what the program's would be, and nothing is left."""
    assert oci("run", "--bundle", str(oci.bundle("/no/such/program")), "run4").code == 1
    assert oci("run", "--bundle", str(oci.directory / "nowhere"), "run5").code == 1
    assert oci.ok("list", "-q") == ""


@requires(cgroup2=("pids", "memory", "cpu"))
def test_update_changes_what_is_named(oci: Oci) -> None:
    """Flags, then a document on standard input: each changes its limits and leaves the others."""
    oci.start("run6", "sleep", "100")
    directory = cgroup(oci, "run6")
    oci.ok("update", "--pids-limit", "50", "run6")
    oci.ok("update", "--resources=-", "run6", stdin='{"memory": {"limit": 67108864}}')
    assert (directory / "pids.max").read_text() == "50\n"
    assert (directory / "memory.max").read_text() == "67108864\n"


@pytest.mark.skipif(not IS_PYRUN, reason="requires pyrun: runc takes no v2 file beside v1 controllers")
def test_update_merges_partial_documents(oci: Oci) -> None:
    """A document changes what it names."""
    oci.start("run7", "sleep", "100")
    directory = cgroup(oci, "run7")
    document = oci.directory / "resources.json"
    document.write_text('{"unified": {"cgroup.max.depth": "5"}}')
    oci.ok("update", "--resources", str(document), "run7")
    oci.ok("update", "--resources", "-", "run7", stdin='{"unified": {"cgroup.max.descendants": "7"}}')
    assert (directory / "cgroup.max.depth").read_text() == "5\n"
    assert (directory / "cgroup.max.descendants").read_text() == "7\n"


@pytest.mark.parametrize(
    ("words", "document"),
    [(("--resources", "-"), "{"), (("--resources", "-"), '{"pids": {"limit": "many"}}'), (("--pids-limit", "10x"), "")],
)
def test_update_refuses_nonsense(oci: Oci, words: tuple[str, ...], document: str) -> None:
    """One line, and the exit code 1."""
    oci.start("run8", "sleep", "100")
    done = oci("update", *words, "run8", stdin=document)
    assert done.code == 1
    assert done.err
    assert (done.err.count("\n") == 1) >= IS_PYRUN


def test_stats_once(oci: Oci) -> None:
    """--stats prints one object as runc's types/events.go has it, with times in nanoseconds."""
    oci.start("run9", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 100")
    event = json.loads(oci.ok("events", "--stats", "run9"))
    assert (event["type"], event["id"]) == ("stats", "run9")
    assert event["data"]["pids"]["current"] >= 1
    assert event["data"]["cpu"]["usage"]["total"] > 100_000


@pytest.mark.skipif(not IS_PYRUN, reason="requires pyrun: runc counts intervals from the first one's end")
def test_events_until_the_container_ends(oci: Oci) -> None:
    """A line per interval; the command ends with the container."""
    oci.start("run10", "sleep", "100")
    with subprocess.Popen(oci.words("events", "--interval", "100ms", "run10"), stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        for _ in range(3):
            assert json.loads(watching.stdout.readline())["type"] == "stats"
        oci.ok("kill", "run10", "KILL")
        assert watching.wait(30) == 0
    oci.wait("run10", "stopped")
    assert "container not running" in oci("events", "--stats", "run10").err
