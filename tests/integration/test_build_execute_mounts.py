# SPDX-License-Identifier: Apache-2.0
"""RUN --mount of every type: what the step sees, what stays, and that none of it is in the layer."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest

import build_steps
import leftovers
from pyrun.runtime.engine.build import cache_mounts
from pyrun.runtime.engine.build.agent import AgentRelay
from pyrun.runtime.engine.build.failure import Cancelled
from pyrun.runtime.engine.build.mounts import RunMount
from pyrun.runtime.errors import NotFound, UsageError
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_steps import Steps
    from cli import Pyrun

pytestmark = requires(root=True)


@pytest.fixture
def steps(pyrun: Pyrun, base_image: str) -> Iterator[Steps]:
    """Steps on the busybox image; afterwards nothing of them is left but caches, which are removed."""
    yield build_steps.of_image(pyrun.paths, base_image)
    assert not leftovers.lasting(pyrun.paths)
    cache_mounts.prune(pyrun.paths)
    assert os.listdir(cache_mounts.root(pyrun.paths)) == []


@pytest.fixture(autouse=True)
def cache_root(pyrun: Pyrun) -> None:
    """The directory of the caches, there from the beginning."""
    os.makedirs(cache_mounts.root(pyrun.paths), exist_ok=True)


def bind(target: str, *lowers: Path, **how: object) -> RunMount:
    """A bind mount of a tree."""
    return RunMount("bind", target, lowers=tuple(map(str, lowers)), where="stage 'base'", **how)  # type: ignore[arg-type]


# ---- bind ------------------------------------------------------------------------------------------------------------


def test_bind_shows_a_directory_read_only(steps: Steps, tmp_path: Path) -> None:
    """The tree's files are there and cannot be changed; the mount point is not in the layer."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_text("content\n")
    ran = steps.sh("cat /src/sub/file; touch /src/x 2>/dev/null || echo read-only", mounts=(bind("/src", tmp_path),))
    assert ran.out == "content\nread-only\n"
    assert ran.changed == {}


def test_bind_of_a_path_below(steps: Steps, tmp_path: Path) -> None:
    """source= names a directory or a file of the tree."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_text("content\n")
    mounts = (bind("/a", tmp_path, source="/sub"), bind("/b/file", tmp_path, source="sub/file"))
    assert steps.sh("cat /a/file /b/file", mounts=mounts).out == "content\ncontent\n"


def test_bind_of_several_layers(steps: Steps, tmp_path: Path) -> None:
    """A stage is its layers, merged: what a later one deleted is not there."""
    one, two = tmp_path / "1", tmp_path / "2"
    for layer in (one, two):
        (layer / "d").mkdir(parents=True)
    (one / "d/old").write_text("old\n")
    (one / "d/gone").write_text("gone\n")
    (two / "d/new").write_text("new\n")
    os.mknod(two / "d/gone", stat.S_IFCHR | 0o600, 0)
    ran = steps.sh("ls /m; cat /m/old; touch /m/x 2>/dev/null || echo ro", mounts=(bind("/m", one, two, source="d"),))
    assert ran.out == "new\nold\nold\nro\n"
    assert ran.changed == {}


@pytest.mark.parametrize("layers", [1, 2])
def test_bind_rw_throws_changes_away(steps: Steps, tmp_path: Path, layers: int) -> None:
    """rw: the step writes, and neither the tree nor the layer has it afterwards."""
    trees = [tmp_path / str(number) for number in range(layers)]
    for tree in trees:
        (tree / "d").mkdir(parents=True)
    (trees[0] / "d/file").write_text("old\n")
    mount = bind("/m", *trees, source="d", readonly=False)
    ran = steps.sh("echo new >/m/file; echo x >/m/other; rm -f /m/nothing; cat /m/file /m/other", mounts=(mount,))
    assert ran.out == "new\nx\n"
    assert ran.changed == {}
    assert (trees[0] / "d/file").read_text() == "old\n"
    assert os.listdir(trees[0] / "d") == ["file"]


def test_bind_of_nothing(steps: Steps, tmp_path: Path) -> None:
    """A source that is not there: which, and of what."""
    with pytest.raises(NotFound, match="'gone' in stage 'base': no such file"):
        steps("/bin/true", mounts=(bind("/m", tmp_path, source="gone"),))


def test_bind_of_the_context_without_what_is_ignored(steps: Steps, tmp_path: Path) -> None:
    """What .dockerignore names is not there for a mount either."""

    class Ignore:
        def ignored(self, path: str, is_dir: bool) -> bool:
            return path == "secret" or (path.startswith("skip") and path != "skip/but")

    for name in ("secret", "skip/a", "skip/but", "kept"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    os.chown(tmp_path / "kept", 5, 5)
    script = "cd /m; find . -type f | sort; cat skip/but; stat -c ' %u' kept"
    ran = steps.sh(script, mounts=(bind("/m", tmp_path, ignore=Ignore()),))
    assert ran.out == "./kept\n./skip/but\nskip/but 0\n"


# ---- cache -----------------------------------------------------------------------------------------------------------


def cache(target: str, **how: object) -> RunMount:
    """A writable cache mount."""
    return RunMount("cache", target, readonly=False, **how)  # type: ignore[arg-type]


def test_a_cache_outlives_the_step(steps: Steps) -> None:
    """What one step leaves in a cache, the next finds; by the target, or by an id; nothing of it is in the layer."""
    assert steps.sh("echo 1 >/root/.cache/n", mounts=(cache("/root/.cache"),)).changed == {}
    assert steps.sh("cat /root/.cache/n", mounts=(cache("/root/.cache"),)).out == "1\n"
    assert steps.sh("cat /other/n", mounts=(cache("/other", id="/root/.cache"),)).out == "1\n"
    assert steps.sh("ls /other", mounts=(cache("/other"),)).out == ""


def test_owner_and_mode_of_a_new_cache(steps: Steps) -> None:
    """uid, gid and mode hold when it is made."""
    ran = steps.sh("stat -c '%a %u %g' /c; touch /c/x", mounts=(cache("/c", uid=5, gid=6, mode=0o700),), user="5:6")
    assert ran.out == "700 5 6\n"


def test_a_cache_is_filled_at_first(steps: Steps, tmp_path: Path) -> None:
    """from= and source= give the first content; changes go to the cache and never back."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_text("first\n")
    os.link(tmp_path / "d/file", tmp_path / "d/again")
    mount = cache("/c", lowers=(str(tmp_path),), source="d", base="sha256:1")
    assert steps.sh("cat /c/file /c/again; echo second >/c/file", mounts=(mount,)).out == "first\nfirst\n"
    assert steps.sh("cat /c/file", mounts=(mount,)).out == "second\n"
    assert (tmp_path / "d/file").read_text() == "first\n"
    assert steps.sh("cat /c/file", mounts=(mount.replace(base="sha256:2"),)).out == "first\n"


def test_a_read_only_cache(steps: Steps) -> None:
    """ro: it can be read."""
    steps.sh("echo 1 >/c/n", mounts=(cache("/c"),))
    assert steps("/bin/sh", "-c", "cat /c/n; echo 2 >/c/n", mounts=(RunMount("cache", "/c"),)).out == "1\n"


def at_once(steps: Steps, script: str, mount: RunMount, count: int = 3) -> list[str]:
    """What as many steps at a time write."""
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(steps.sh(script, mounts=(mount,)).out)) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


BUSY = "if mkdir /c/busy 2>/dev/null; then sleep 0.4; rmdir /c/busy; echo alone; else echo together; fi"


def test_locked_is_one_after_the_other(steps: Steps) -> None:
    """sharing=locked: no two steps have it at a time."""
    assert at_once(steps, BUSY, cache("/c", sharing="locked")) == ["alone\n"] * 3


def test_shared_is_at_once(steps: Steps) -> None:
    """sharing=shared: who has it at the same time sees what the others do."""
    holder = cache_mounts.claim(steps.paths, "/c", "shared", "", lambda _: None)
    with open(f"{holder.path}/mine", "w", encoding="ascii") as file:
        file.write("here\n")
    assert steps.sh("cat /c/mine", mounts=(cache("/c", sharing="shared"),)).out == "here\n"
    holder.close()


def test_private_is_another_one(steps: Steps) -> None:
    """sharing=private: a second one at the same time is a cache of its own, a later one the first again."""
    holders = [cache_mounts.claim(steps.paths, "/c", "private", "", lambda _: None) for _ in range(2)]
    steps.sh("echo third >/c/n", mounts=(cache("/c", sharing="private"),))
    assert len(os.listdir(cache_mounts.root(steps.paths))) == 3
    assert [os.listdir(holder.path) for holder in holders] == [[], []]
    for holder in holders:
        holder.close()
    steps.sh("echo first >/c/n", mounts=(cache("/c", sharing="private"),))
    assert os.listdir(holders[0].path) == ["n"]


def test_waiting_for_a_cache_can_be_cancelled(steps: Steps) -> None:
    """A step that waits for a locked cache ends with the build, and recover() does not wait for it."""
    cancel = threading.Event()
    mount = cache("/c", sharing="locked")
    with pytest.raises(Cancelled):
        holder = cache_mounts.claim(steps.paths, "/c", "locked", "", lambda _: None)
        threading.Timer(0.4, cancel.set).start()
        try:
            steps("/bin/true", mounts=(mount,), cancel=cancel)
        finally:
            holder.close()


def test_usage_and_prune(steps: Steps) -> None:
    """What there is, how large, who uses it; a cache in use stays."""
    steps.sh("head -c 100000 /dev/zero >/c/zeros", mounts=(cache("/c", id="some"), cache("/d")))
    (small, large) = sorted(cache_mounts.usage(steps.paths), key=lambda one: one.size)
    assert (large.id, small.id) == ("some", "/d")
    assert large.size >= 100000
    assert not large.in_use
    holder = cache_mounts.claim(steps.paths, "some", "shared", "", lambda _: None)
    assert [one.id for one in cache_mounts.usage(steps.paths) if one.in_use] == ["some"]
    assert [one.id for one in cache_mounts.prune(steps.paths)] == ["/d"]
    holder.close()
    assert cache_mounts.prune(steps.paths, lambda one: one.id == "other") == []
    assert [one.id for one in cache_mounts.prune(steps.paths)] == ["some"]


def test_a_cache_that_could_not_be_filled_is_not_there(steps: Steps) -> None:
    """What fails half-way leaves nothing that a later step could take for the cache."""

    def fail(directory: str) -> None:
        with open(f"{directory}/half", "w", encoding="ascii"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        cache_mounts.claim(steps.paths, "x", "shared", "", fail)
    assert os.listdir(cache_mounts.root(steps.paths)) == []


# ---- tmpfs, secret, file, ssh ----------------------------------------------------------------------------------------


def test_tmpfs(steps: Steps) -> None:
    """Empty memory of the size asked for; its content is gone."""
    ran = steps.sh(
        "echo x >/scratch/x; df -k /scratch | tail -1; ls /tmp", mounts=(
            RunMount("tmpfs", "/scratch", size=1 << 20), RunMount("tmpfs", "/tmp"),
        ),
    )  # fmt: skip
    assert " 1024 " in ran.out
    assert ran.changed == {}


def test_a_secret_is_a_file_in_memory(steps: Steps) -> None:
    """Content, mode and owner as asked; read-only; neither in the layer nor in any file of the data root."""
    secret = RunMount("secret", "/run/secrets/key", content=b"s3cret-value", mode=0o440, uid=3, gid=4)
    script = "cat /run/secrets/key; stat -c ' %a %u %g' /run/secrets/key; echo x >/run/secrets/key || true"
    found: list[str] = []
    looked: list[bool] = []

    def look(_: object = None) -> None:
        time.sleep(0.4)
        for path in build_steps.below(steps.paths.data):
            try:
                with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                    found.extend([path] if b"s3cret-value" in file.read(1 << 20) else [])
            except OSError:
                continue  # a directory, a link, or gone
        looked.append(True)

    looker = threading.Thread(target=look)
    looker.start()
    ran = steps.sh(script + "; sleep 1", mounts=(secret,))
    looker.join()
    assert ran.out == "s3cret-value 440 3 4\n"
    assert ran.changed == {}
    assert looked
    assert found == []


def test_a_secret_as_a_variable(steps: Steps) -> None:
    """env=: in the step's environment, and nowhere else."""
    ran = steps.sh(
        'echo "[$TOKEN]"; ls /run/secrets 2>&1 || true', mounts=(RunMount("secret", "", content=b"abc", env="TOKEN"),)
    )
    assert ran.out.startswith("[abc]\n")
    assert "No such file" in ran.out


@pytest.mark.parametrize("content", [b"a\0b", b"\xff"])
def test_a_secret_that_is_no_text(steps: Steps, content: bytes) -> None:
    """It can be a file and not a variable."""
    with pytest.raises(UsageError, match="not text"):
        steps("/bin/true", mounts=(RunMount("secret", "", content=content, env="TOKEN"),))
    mount = RunMount("secret", "/s", content=content)
    assert steps.sh("wc -c </s", mounts=(mount,)).out.strip() == str(len(content))


def test_a_file_of_the_builders(steps: Steps) -> None:
    """A heredoc's script: there, executable, not in the layer."""
    mount = RunMount("file", "/dev/pipes/EOF", content=b"#!/bin/sh\necho script $0\n", mode=0o755)
    ran = steps("/dev/pipes/EOF", mounts=(mount,))
    assert ran.out == "script /dev/pipes/EOF\n"
    assert ran.changed == {}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """Something that listens at a socket and gives back what it is sent, reversed."""
    path = str(tmp_path / "agent.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while data := client.recv(65536):
                client.sendall(data[::-1])

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_the_agents_socket(steps: Steps, agent: str) -> None:
    """A socket with the owner and mode asked for, and SSH_AUTH_SOCK that names it."""
    mount = RunMount("ssh", "/run/buildkit/ssh_agent.0", socket=agent, env="SSH_AUTH_SOCK", uid=5, mode=0o600)
    ran = steps.sh('test -S "$SSH_AUTH_SOCK"; stat -c "%n %a %u %g" $SSH_AUTH_SOCK', mounts=(mount,))
    assert ran.out == "/run/buildkit/ssh_agent.0 600 5 0\n"
    assert ran.changed == {}


def test_the_relay_to_the_agent(agent: str, tmp_path: Path) -> None:
    """Requests go through, for several connections at a time, and close() ends them, also one that does not read."""
    relay = AgentRelay(str(tmp_path), agent).start(0, 0, 0o600)
    with (
        socket.socket(socket.AF_UNIX) as one,
        socket.socket(socket.AF_UNIX) as two,
        socket.socket(socket.AF_UNIX) as bad,
    ):
        for client in (one, two, bad):
            client.settimeout(20)
            client.connect(relay.path)
        one.sendall(b"\0\0\0\4\x0babc")
        two.sendall(b"\0\0\0\3\x0d12")
        assert (one.recv(10), two.recv(10)) == (b"cba\x0b\4\0\0\0", b"21\x0d\3\0\0\0")
        bad.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            left = (b"\0\0\xff\xfc\x0b" + b"x" * 0xFFFB) * 100
            while left:
                left = left[bad.send(left) :]
        relay.close()
        assert one.recv(10) == b""
    assert not any(thread.name == "ssh agent" for thread in threading.enumerate())


def test_an_agent_that_is_gone(steps: Steps, tmp_path: Path) -> None:
    """Its socket and the reason are named; nothing is left."""
    with pytest.raises(NotFound, match="ssh agent at"):
        steps("/bin/true", mounts=(RunMount("ssh", "/run/a", socket=str(tmp_path / "none")),))


# ---- targets ---------------------------------------------------------------------------------------------------------


def test_mounts_within_mounts(steps: Steps, tmp_path: Path) -> None:
    """A file of one tree inside a tmpfs, whatever the order they were given in."""
    (tmp_path / "file").write_text("x\n")
    mounts = (bind("/t/deep/file", tmp_path, source="file"), RunMount("tmpfs", "/t"))
    assert steps.sh("cat /t/deep/file", mounts=mounts).out == "x\n"


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/self", "relative", "/a/../b", "/a//b", ""])
def test_targets_that_cannot_be(steps: Steps, target: str) -> None:
    """The root, procfs, and what is no clean absolute path."""
    with pytest.raises(UsageError):
        steps("/bin/true", mounts=(RunMount("tmpfs", target),))


def test_two_mounts_on_one_target(steps: Steps) -> None:
    """Refused: one would hide the other."""
    with pytest.raises(UsageError, match="two mounts"):
        steps("/bin/true", mounts=(RunMount("tmpfs", "/a"), RunMount("tmpfs", "/a")))


def test_hosts_of_the_steps_own(steps: Steps, tmp_path: Path) -> None:
    """A mount on /etc/hosts takes the place of the builder's."""
    (tmp_path / "hosts").write_text("10.9.9.9 mine\n")
    ran = steps.sh("cat /etc/hosts", mounts=(bind("/etc/hosts", tmp_path, source="hosts"),))
    assert ran.out == "10.9.9.9 mine\n"


def test_a_target_of_another_kind(steps: Steps, tmp_path: Path) -> None:
    """A directory on a file of the image, and below one: refused, with the reason."""
    for target, why in (("/etc/passwd", "the image has a file there"), ("/etc/passwd/x", "no directory in the image")):
        with pytest.raises(UsageError, match=why):
            steps("/bin/true", mounts=(bind(target, tmp_path),))
    shutil.rmtree(tmp_path)
