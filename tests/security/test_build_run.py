# SPDX-License-Identifier: Apache-2.0
"""Attacks by a Dockerfile, an image or another step on the host of a build: the RUN rows of the escape table, tried."""

from __future__ import annotations

import os
import shutil
import threading
from typing import TYPE_CHECKING

import pytest

import build_steps
import leftovers
from pyrun.runtime.engine.build import cache_mounts, debug
from pyrun.runtime.engine.build.mounts import RunMount
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_steps import Steps
    from cli import Pyrun

pytestmark = requires(root=True)

MARKER = "only-on-the-host"


@pytest.fixture
def steps(pyrun: Pyrun, base_image: str) -> Iterator[Steps]:
    """Steps on the busybox image; afterwards nothing of them is left."""
    yield build_steps.of_image(pyrun.paths, base_image)
    assert not leftovers.lasting(pyrun.paths)
    cache_mounts.prune(pyrun.paths)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory of the host that no step may see or change."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text(MARKER)
    return tmp_path / "host"


@pytest.fixture
def tree(tmp_path: Path, host: Path) -> Path:
    """A stage that was made to lead outside: absolute links, links upwards, a link to a process's root."""
    tree = tmp_path / "tree"
    (tree / "plain").mkdir(parents=True)
    (tree / "absolute").symlink_to(host)
    (tree / "root").symlink_to("/")
    (tree / "up").symlink_to("../" * 40 + str(host).lstrip("/"))
    (tree / "magic").symlink_to("/proc/self/root")
    (tree / "file").symlink_to(host / "secret")
    return tree


def untouched(host: Path) -> bool:
    """Whether the host's directory is as it was."""
    return os.listdir(host) == ["secret"] and (host / "secret").read_text() == MARKER


# ---- CVE-2024-1753 (buildah), CVE-2024-23653's sister in mount sources: the source is a link out of the stage --------


@pytest.mark.parametrize("source", ["absolute", "up", "file", "magic", "absolute/secret", "../" * 30 + "etc/shadow"])
@pytest.mark.parametrize("readonly", [True, False])
def test_a_source_that_links_out(steps: Steps, tree: Path, host: Path, source: str, readonly: bool) -> None:
    """It is looked for inside the stage, where there is no such thing."""
    for lowers in ((str(tree),), (str(tree), str(tree / "plain"))):
        mount = RunMount("bind", "/m", lowers=lowers, source=source, readonly=readonly, where="stage 'evil'")
        with pytest.raises(PyrunError) as refused:
            steps("/bin/sh", "-c", "cat /m /m/* >&2; echo x >/m/new", mounts=(mount,))
        assert isinstance(refused.value, NotFound)
    assert untouched(host)


@pytest.mark.parametrize("readonly", [True, False])
def test_a_source_that_links_to_the_root(steps: Steps, tree: Path, host: Path, readonly: bool) -> None:
    """ "/" is the stage's own root: the host's is not seen, and nothing is written outside."""
    mount = RunMount("bind", "/m", lowers=(str(tree),), source="root", readonly=readonly)
    ran = steps("/bin/sh", "-c", f"ls /m; cat /m{host}/secret; echo x >/m{host}/secret; true", mounts=(mount,))
    assert "plain" in ran.out
    assert MARKER not in ran.out
    assert untouched(host)


# ---- CVE-2024-11218, CVE-2024-23651: the source is swapped for a link between the look and the mount -----------------


@pytest.mark.parametrize("readonly", [True, False])
def test_a_source_that_is_swapped_while_it_is_mounted(steps: Steps, tmp_path: Path, host: Path, readonly: bool) -> None:
    """Another process replaces the directory by a link to the host's, over and over: no step ever gets the host's."""
    tree = tmp_path / "context"
    (tree / "a/dir").mkdir(parents=True)
    (tree / "b").mkdir()
    (tree / "b/dir").symlink_to(host)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for one, other in (("a", "b"), ("b", "a")):
                os.rename(tree / one / "dir", tree / "kept")
                os.rename(tree / other / "dir", tree / one / "dir")
                os.rename(tree / "kept", tree / other / "dir")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = ""
    try:
        for _ in range(25):
            mount = RunMount("bind", "/m", lowers=(str(tree),), source="a/dir", readonly=readonly)
            try:
                seen += steps("/bin/sh", "-c", "cat /m/secret; echo x >/m/new", mounts=(mount,)).out
            except PyrunError:
                continue  # it was a link just then, or nothing
    finally:
        stop.set()
        swapper.join()
    assert MARKER not in seen
    assert untouched(host)


def test_a_cache_that_another_step_fills_with_links(steps: Steps, host: Path) -> None:
    """Only a cache's root is mounted: a path that a step left in it as a link is never followed (CVE-2024-23651)."""
    steps.sh(f"ln -s {host} /c/sub; ln -s / /c/root", mounts=(RunMount("cache", "/c", readonly=False),))
    mount = RunMount("cache", "/c", readonly=False, source="sub")
    ran = steps("/bin/sh", "-c", "ls -l /c; cat /c/secret /c/sub/secret /c/root/secret", mounts=(mount,))
    assert MARKER not in ran.out
    assert untouched(host)


@pytest.mark.parametrize(
    "cache_id", ["../../../../../../../../tmp/out", "/etc", "..", ".", "a\nb", "x" * 5000, "ü\udcff"]
)
def test_the_id_of_a_cache_is_no_path(steps: Steps, cache_id: str) -> None:
    """CVE-2024-9675: whatever the id, the cache is a directory of its own in the caches' directory."""
    mount = RunMount("cache", "/c", readonly=False, id=cache_id)
    assert steps.sh("echo x >/c/x; ls -a /c", mounts=(mount,)).out.split() == [".", "..", "x"]
    (name,) = os.listdir(cache_mounts.root(steps.paths))
    assert os.listdir(f"{cache_mounts.root(steps.paths)}/{name}/fs") == ["x"]


# ---- CVE-2024-23652: removing mount points afterwards removed files of the host --------------------------------------


def test_mount_points_that_the_step_turned_into_links(steps: Steps, host: Path) -> None:
    """The parent of a mount point becomes a link to the host's directory; nothing is removed through it."""
    (host.parent / "victim").mkdir()
    (host.parent / "victim/point").write_text("")
    script = (
        f"mv /a /b 2>/dev/null; rm -rf /a 2>/dev/null; ln -s {host.parent}/victim /a || ln -s {host.parent} /a/l; true"
    )
    for kind in ("tmpfs", "cache"):
        steps("/bin/sh", "-c", script, mounts=(RunMount(kind, "/a/point", readonly=False),))
    secret = RunMount("secret", "/a/point", content=b"x")
    steps("/bin/sh", "-c", script, mounts=(secret,))
    assert (host.parent / "victim/point").read_text() == ""
    assert untouched(host)


def test_targets_that_lead_out(steps: Steps, tmp_path: Path, host: Path) -> None:
    """A target below a link of the image to the host's directory: made and mounted inside the image only."""
    layer = tmp_path / "fs"
    layer.mkdir()
    (layer / "out").symlink_to(host)
    (layer / "upwards").symlink_to("../" * 40 + str(host).lstrip("/"))
    mounts = tuple(
        RunMount(kind, target, readonly=False)
        for kind, target in (("tmpfs", "/out/tmpfs"), ("cache", "/upwards/cache"), ("secret", "/out/file"))
    )
    steps.on(layer).sh("echo x >/out/tmpfs/x; echo y >/upwards/cache/y", mounts=mounts)
    assert untouched(host)


# ---- CVE-2024-23653: privileges without the entitlement --------------------------------------------------------------


def test_insecure_needs_the_entitlement(steps: Steps) -> None:
    """--security=insecure without --allow security.insecure is refused here too, whoever asks."""
    with pytest.raises(UsageError, match="not allowed"):
        steps("/bin/true", insecure=True)
    with pytest.raises(UsageError, match="not allowed"):
        steps("/bin/true", insecure=True, entitlements=("network.host",))
    with pytest.raises(UsageError, match="not allowed"):
        steps("/bin/true", network="host", entitlements=("security.insecure",))


def test_insecure_with_the_entitlement(steps: Steps) -> None:
    """It has every capability then, and its mounts still do not reach the host."""
    before = open_mounts()
    ran = steps.sh(
        "grep CapEff /proc/self/status; mkdir /m; mount -t tmpfs none /m; mount -t tmpfs none /c; echo ok",
        insecure=True, entitlements=("security.insecure",), mounts=(RunMount("cache", "/c", readonly=False),),
    )  # fmt: skip
    assert int(ran.out.split()[1], 16) & (1 << 21)  # CAP_SYS_ADMIN
    assert ran.out.endswith("ok\n")
    assert open_mounts() == before


def open_mounts() -> list[str]:
    """The host's mounts."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return file.read().splitlines()


def test_a_debug_shell_is_never_privileged() -> None:
    """The shell on a failed step's state has an ordinary container's rights, whatever the step had (CVE-2024-23653)."""
    state = debug.FailedState("x", "", 0.0, (), ("sh",), (), "/", "", "default", entitlements=("security.insecure",))
    from pyrun.runtime.paths import Paths

    options = debug.describe(Paths("/nowhere", "/nowhere"), state, ("/bin/sh",)).options
    assert not options.privileged
    assert options.cap_add == ()


# ---- what leaks in ---------------------------------------------------------------------------------------------------


def test_no_descriptor_of_the_hosts_is_open(steps: Steps) -> None:
    """CVE-2024-21626: the step has its three streams, and none of the builder's directories."""
    ran = steps.sh("for fd in /proc/1/fd/*; do echo $(basename $fd) $(readlink $fd); done", network="default")
    found = dict(line.split(" ", 1) for line in ran.out.splitlines())
    assert {number for number in found if int(number) < 3} == {"0", "1", "2"}
    assert all(not target.startswith("/") or target.startswith(("/dev/", "/proc/")) for target in found.values()), found


@pytest.mark.parametrize("number", range(3, 12))
def test_a_working_directory_behind_a_descriptor(steps: Steps, number: int) -> None:
    """CVE-2024-21626: WORKDIR /proc/self/fd/N leads nowhere."""
    with pytest.raises(PyrunError):
        steps("/bin/sh", "-c", "pwd; ls ../../../../etc/shadow", workdir=f"/proc/self/fd/{number}")


def test_the_builders_environment_is_not_seen(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2021-3602: only what the Dockerfile gives; no process of the step is the builder."""
    monkeypatch.setenv("BUILDER_TOKEN", "t0ken-of-the-host")
    ran = steps.sh("cat /proc/*/environ | tr '\\0' '\\n'; env; cat /proc/*/cmdline | tr '\\0' ' '")
    assert "t0ken-of-the-host" not in ran.out
    assert "python" not in ran.out


def test_whiteouts_and_overlays_attributes_cannot_be_forged(steps: Steps) -> None:
    """A step cannot make what overlayfs would take for its own: device 0:0, trusted.overlay.*"""
    ran = steps("/bin/sh", "-c", "mknod /w c 0 0; echo $?")
    assert ran.out != "0\n"
    assert "w" not in ran.changed


def test_nothing_is_left_of_a_hostile_scratch(steps: Steps, host: Path) -> None:
    """A layer full of links to the host, immutable names and deep directories is removed without following anything."""
    deeper = f"while [ $i -lt 200 ]; do mkdir y; cd y; ln -s {host} l; i=$((i+1)); done"
    script = f"ln -s {host} /x; mkdir -p /d; cd /d; i=0; {deeper}"
    steps("/bin/sh", "-c", script, mounts=(RunMount("bind", "/r", lowers=steps.lowers, readonly=False),))
    assert untouched(host)
    shutil.rmtree(host.parent)
