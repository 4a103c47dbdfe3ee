# SPDX-License-Identifier: Apache-2.0
"""Stages: which are built, at the same time, what one takes from another; builds beside each other; killed builds."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import machine
from builds import Builds
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)


@pytest.fixture
def build(pyrun: Pyrun, base_image: str, tmp_path: Path) -> Builds:
    """Builds on the session's roots, where busybox:latest is."""
    return Builds(pyrun, tmp_path)


def test_only_what_the_target_needs(build: Builds) -> None:
    """A stage that nobody takes from is not built; --target ends at its stage, by name or number."""
    text = (
        "FROM busybox AS base\nRUN echo base > /base\nFROM busybox AS broken\nRUN false\n"
        "FROM base AS middle\nRUN echo middle > /middle\nFROM base\nCOPY --from=middle /middle /\nCMD last\n"
    )
    made = build(text)
    assert build.sh(made.id, "cat /base /middle") == "base\nmiddle"
    assert build.sh(build(text, "--target", "middle").id, "ls -d /base /middle") == "/base\n/middle"
    assert build(text, "--target", "0").history[-1] == "RUN /bin/sh -c echo base > /base"
    result = build.fails(text, "--target", "midle")
    assert "target stage 'midle'" in result.err
    assert "did you mean 'middle'?" in result.err


def test_independent_stages_run_at_the_same_time(build: Builds) -> None:
    """Two stages that wait for each other's sign over a shared cache mount both end."""
    salt = os.urandom(4).hex()
    wait = "n=0; while [ ! -e /c/{0} ] && [ $n -lt 300 ]; do sleep 0.1; n=$((n+1)); done; [ -e /c/{0} ]"
    mount = f"--mount=type=cache,id={salt},target=/c"
    made = build(
        f"FROM busybox AS a\nRUN {mount} touch /c/a; {wait.format('b')}; echo a > /a\n"
        f"FROM busybox AS b\nRUN {mount} touch /c/b; {wait.format('a')}; echo b > /b\n"
        "FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )
    assert build.sh(made.id, "cat /a /b") == "a\nb"


def test_a_failure_ends_the_others(build: Builds) -> None:
    """When one stage fails, the other's RUN is killed, and the error is the first one's."""
    salt = os.urandom(4).hex()
    began = time.monotonic()
    result = build.fails(
        f"FROM busybox AS slow\nRUN sleep 300; echo {salt}\n"
        f"FROM busybox AS bad\nRUN sleep 1; echo {salt}; exit 9\n"
        "FROM busybox\nCOPY --from=slow / /a\nCOPY --from=bad / /b\n"
    )
    assert time.monotonic() - began < 100 * machine.slowness()
    assert result.rc == 1
    assert "exit code 9" in result.err.splitlines()[-2]
    assert "CANCELED" in result.err


def test_from_an_image_a_number_and_contexts(build: Builds, tmp_path: Path) -> None:
    """COPY --from: a number, an image, a --build-context (a directory, an image, a layout); FROM of a context."""
    directory = tmp_path / "named"
    directory.mkdir()
    (directory / "file").write_text("named")
    text = (
        "FROM busybox\nRUN echo zero > /zero\nFROM scratch\nCOPY --from=0 /zero /\n"
        "COPY --from=busybox /bin/busybox /bb\nCOPY --from=dir /file /named\nCOPY --from=img /bin/busybox /bb2\n"
    )
    made = build(text, "--build-context", f"dir={directory}", "--build-context", "img=docker-image://busybox")
    build.pyrun.ok("build", "-q", "-o", str(tmp_path / "out"), "--build-context", f"dir={directory}",
                   "--build-context", "img=docker-image://busybox", str(build.context))  # fmt: skip
    assert (tmp_path / "out/zero").read_text() == "zero\n"
    assert (tmp_path / "out/named").read_text() == "named"
    assert (tmp_path / "out/bb").read_bytes() == (tmp_path / "out/bb2").read_bytes()
    build.pyrun.ok("build", "-q", "-o", f"type=oci,tar=false,dest={tmp_path / 'layout'}", str(build.context),
                   "--build-context", f"dir={directory}", "--build-context", "img=docker-image://busybox")  # fmt: skip
    over = build(
        "FROM there\nCOPY --from=there /named /again\n", "--build-context", f"there=oci-layout://{tmp_path / 'layout'}"
    )
    assert over.document["rootfs"]["diff_ids"][:-1] == made.document["rootfs"]["diff_ids"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM busybox\nCOPY --from=later /x /\nFROM busybox AS later\nFROM busybox\nCOPY --from=0 / /\n", "later"),
        ("FROM busybox\nCOPY --from=7 /x /\n", "there is no stage 7"),
        ("FROM nothing-like-it\n", "no such image 'nothing-like-it'"),
        ("FROM busybox\nCOPY --from=nothing-like-it / /\n", "no such image 'nothing-like-it'"),
        ("FROM $EMPTY\n", "the image's name is empty"),
    ],
)
def test_sources_that_are_not_there(build: Builds, text: str, said: str) -> None:
    """Each is one line with the line of the Dockerfile, exit code 1."""
    result = build.fails(text)
    assert result.rc == 1
    assert said in result.err
    assert "pyrun: Dockerfile:" in result.err


def test_two_builds_of_the_same_at_once(build: Builds, tmp_path: Path) -> None:
    """Four builds side by side: all end, their images work, the store is whole."""
    salt = os.urandom(4).hex()
    text = f"FROM busybox\nRUN echo {salt} > /x\nRUN cat /x > /y\nCOPY f /\n"
    (build.context / "Dockerfile").write_text(text)
    build.write({"f": "f"})

    def one(number: int) -> str:
        return build.pyrun.ok("build", "-q", "-t", f"beside:{number}", str(build.context), timeout=180)

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(one, range(4)))
    for image_id in ids:
        assert build.sh(image_id, "cat /x /y /f").split() == [salt, salt, "f"]
    assert build(text).ran == ()


def test_builds_and_removals_at_once(build: Builds) -> None:
    """Builds go on while their tags are removed and everything unused is pruned."""
    build.write({"f": "f"})
    salt = os.urandom(4).hex()
    (build.context / "Dockerfile").write_text(f"FROM busybox\nRUN echo {salt} > /x\nCOPY f /\nRUN echo again\n")

    def make(number: int) -> bool:
        result = build.pyrun("build", "-q", "--no-cache", "-t", f"churn:{number}", str(build.context), timeout=180)
        assert result.rc == 0, str(result)
        return True

    def remove(_: int) -> bool:
        build.pyrun("builder", "prune", "-af")
        build.pyrun("image", "prune", "-f")
        return True

    with ThreadPoolExecutor(3) as pool:
        assert all([*pool.map(make, range(6)), *pool.map(remove, range(6))])
    made = build(f"FROM busybox\nRUN echo {salt} > /x\n")
    assert build.sh(made.id, "cat /x") == salt


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.6, 1.0, 1.5])
def test_killed_in_the_middle(other_pyrun: Callable[[], Pyrun], busybox_tar: str, tmp_path: Path, delay: float) -> None:
    """kill -9 of the worker at any point leaves a store in which the same build then goes well, and nothing else."""
    pyrun = other_pyrun()
    pyrun.ok("import", busybox_tar, "busybox:latest")
    build = Builds(pyrun, tmp_path)
    text = (
        "FROM busybox\nRUN echo 1 > /1\nRUN sleep 0.5; echo 2 > /2\nCOPY f /\n"
        "RUN sleep 0.3; dd if=/dev/zero of=/big bs=1M count=20\n"
    )
    (build.context / "Dockerfile").write_text(text)
    build.write({"f": "f"})
    process = pyrun.popen("build", "--progress", "plain", str(build.context))
    time.sleep(delay * machine.slowness())
    workers = _workers(pyrun)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60 * machine.slowness())
    if workers and b" image sha256:" not in err:
        assert process.returncode != 0
    made = build(text)
    assert build.sh(made.id, "cat /1 /2 /f; echo; stat -c %s /big").split() == ["1", "2", "f", str(20 << 20)]
    pyrun.ok("image", "prune", "-f")
    layers = [name for name in os.listdir(f"{pyrun.paths.data}/layers") if "." in name]
    assert layers == []


def _workers(pyrun: Pyrun) -> list[int]:
    """The workers of this monitor that build."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()[1:]]
    monitors = {pid for pid, _, args in rows if args == f"pyrun: monitor {pyrun.paths.run}"}
    return [int(pid) for pid, parent, args in rows if parent in monitors and args.startswith("pyrun: worker: build")]


def test_interrupted_by_the_user(build: Builds) -> None:
    """^C ends the build: the RUN is gone, the exit code is 130, and nothing is left."""
    salt = os.urandom(4).hex()
    (build.context / "Dockerfile").write_text(f"FROM busybox\nRUN echo {salt}; sleep 300\n")
    process = build.pyrun.popen("build", "--progress", "plain", str(build.context))
    assert process.stderr is not None
    for line in process.stderr:
        if salt in line.decode() and b"0." in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60 * machine.slowness())
    assert process.returncode == 130


def test_an_empty_stage(build: Builds) -> None:
    """FROM scratch alone is a stage with nothing in it: COPY and binds of it find that, and no more."""
    text = "FROM scratch AS none\nFROM busybox\n"
    made = build(f"{text}COPY --from=none / /got\nRUN --mount=type=bind,from=none,target=/m ls -A /m | wc -l > /n\n")
    assert build.sh(made.id, "ls -A /got; cat /n") == "0"
    assert "in stage 'none'" in build.fails(f"{text}COPY --from=none /x /\n").err
