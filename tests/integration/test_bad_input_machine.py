# SPDX-License-Identifier: Apache-2.0
"""What is refused, and how, on a machine that lacks something: root, cgroup2, nftables, disk, a sane run root."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import leftovers
import machine
from cli import Pyrun, Result
from half_started import assert_nothing_left, everything_left
from pyrun.runtime.paths import Paths
from refusals import assert_refused
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = requires(root=True, tools=("unshare", "setpriv"))

NOBODY = "65534"
NO_SPACE = ("no space left on device", "free some space")
READ_ONLY = ("read-only file system", "read-only")


@pytest.fixture
def fresh(make_pyrun: Callable[[], Pyrun], busybox_tar: str) -> Pyrun:
    """Roots of its own with a busybox image, for a monitor that sees another machine."""
    pyrun = make_pyrun()
    pyrun.ok("import", busybox_tar, "busybox")
    return pyrun


def through(pyrun: Pyrun, *wrapper: str) -> Callable[..., Result]:
    """Calls the command through another one: through(pyrun, "setpriv", …)("run", …)."""

    def call(*args: str) -> Result:
        done = subprocess.run(
            [*wrapper, pyrun.command, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env=pyrun.environ, timeout=60 * machine.slowness(), check=False,
        )  # fmt: skip
        return Result(args, done.returncode, done.stdout, done.stderr)

    return call


def on_a_machine_where(pyrun: Pyrun, script: str) -> Callable[..., Result]:
    """Calls the command in a mount namespace in which `script` has run, as the monitor that it starts does."""

    def call(*args: str) -> Result:
        words = shlex.join([pyrun.command, *args])
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", f"{script}\nexec {words}"], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, env=pyrun.environ, timeout=60 * machine.slowness(), check=False,
        )  # fmt: skip
        return Result(args, done.returncode, done.stdout, done.stderr)

    return call


# ---- root ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nobodys(make_pyrun: Callable[[], Pyrun]) -> Iterator[Pyrun]:
    """A Pyrun on roots that an ordinary user may write."""
    with tempfile.TemporaryDirectory(prefix="pyrun-nobody-") as base:
        os.chown(base, int(NOBODY), int(NOBODY))
        pyrun = Pyrun(make_pyrun().command, Paths(f"{base}/data", f"{base}/run"))
        yield pyrun
        for name in ("monitor.sock", "keeper.sock"):
            leftovers.end_process(leftovers.listener(f"{base}/run/{name}"))


def as_nobody(pyrun: Pyrun) -> Callable[..., Result]:
    return through(pyrun, "setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups")


def test_without_root(nobodys: Pyrun) -> None:
    """Said at once and plainly, not by way of a missing image or a refused system call."""
    done = as_nobody(nobodys)("run", "--rm", "busybox", "true")
    line = "run: root is needed: running as an ordinary user is not supported yet"
    assert_refused(done, 125, line, hint="sudo pyrun …; --explain works without root")
    assert leftovers.entries(f"{nobodys.paths.data}/containers") == []


def test_without_root_on_roots_of_root(fresh: Pyrun) -> None:
    """An ordinary user on root's own roots: which directory, and what to do."""
    os.chmod(Path(fresh.paths.run).parents[1], 0o755)  # tests' own temporary directory
    fresh.ok("run", "--rm", "busybox", "true")
    done = as_nobody(fresh)("run", "--rm", "busybox", "true")
    assert_refused(done, 125, f"use the run root {fresh.paths.run}: permission denied", hint="sudo pyrun")
    done = as_nobody(fresh)("ps")
    assert_refused(done, 1, f"{fresh.paths.data}/containers: permission denied", hint="sudo pyrun")


# ---- cgroup2, nftables -----------------------------------------------------------------------------------------------


def test_without_cgroup2(fresh: Pyrun) -> None:
    """Where cgroup2 is not mounted, nothing can run: how to mount it."""
    script = f"while mountpoint -q {machine.cgroup2_mount()}; do umount -l {machine.cgroup2_mount()}; done"
    for flags in ([], ["-d"], ["--network", "none"]):
        done = on_a_machine_where(fresh, script)("run", "--rm", *flags, "busybox", "true")
        line = "no cgroup2 mount: pyrun limits and tracks containers by cgroup v2 only"
        assert_refused(done, 125, line, hint="mount -t cgroup2 cgroup2 ")
        assert_nothing_left(fresh, str(done.args))


def libnftables() -> str:
    """The file behind libnftables.so.1, as this process's loader finds it."""
    from pyrun.runtime.kernel import _nftables

    assert _nftables.lib
    with open("/proc/self/maps", encoding="utf-8") as file:
        return next(line.split()[-1] for line in file if "/libnftables.so" in line)


def test_without_nftables(fresh: Pyrun) -> None:
    """A bridge needs libnftables, and says how to get it; a container without network does not need it."""
    call = on_a_machine_where(fresh, f"mount --bind /dev/null {libnftables()}")
    done = call("run", "--rm", "busybox", "true")
    assert done.rc == 125, str(done)
    assert len(done.err.splitlines()) == 2, str(done)
    assert "libnftables cannot be loaded" in done.err.splitlines()[0], str(done)
    assert done.err.splitlines()[1] == "hint: install libnftables: apt install libnftables1", str(done)
    assert_nothing_left(fresh, "run without libnftables")
    alone = call("run", "--rm", "--network", "none", "busybox", "echo", "fine")
    assert (alone.rc, alone.out, alone.err) == (0, "fine\n", ""), str(alone)


# ---- the disk --------------------------------------------------------------------------------------------------------


class Disk:
    """A tmpfs of 24 MiB with the data root in it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def fill(self) -> None:
        """Not one more block."""
        with open(f"{self.path}/ballast", "ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        os.unlink(f"{self.path}/ballast")

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", self.path], check=True, timeout=60)


@pytest.fixture
def disk() -> Iterator[Disk]:
    path = tempfile.mkdtemp(prefix="pyrun-disk-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "pyrun-test", path], check=True, timeout=60)
    yield Disk(path)
    subprocess.run(["umount", "-l", path], check=True, timeout=60)
    os.rmdir(path)


@pytest.fixture
def small(disk: Disk, make_pyrun: Callable[[], Pyrun], busybox_tar: str) -> Iterator[Pyrun]:
    """A Pyrun whose data root is on the small disk."""
    model = make_pyrun()
    run_root = tempfile.mkdtemp(prefix="pyrun-run-")
    pyrun = Pyrun(model.command, Paths(f"{disk.path}/data", run_root))
    pyrun.ok("import", busybox_tar, "busybox")
    yield pyrun
    left = leftovers.end_instance(pyrun)
    shutil.rmtree(run_root)
    assert not left, left


@contextmanager
def full(disk: Disk) -> Iterator[None]:
    disk.fill()
    assert os.statvfs(disk.path).f_bavail == 0
    try:
        yield
    finally:
        disk.free()


def files_below(pyrun: Pyrun) -> set[str]:
    """Every path of the data root that is not a lock."""
    found = (f"{directory}/{name}" for directory, dirs, names in os.walk(pyrun.paths.data) for name in dirs + names)
    return {path for path in found if not path.endswith("lock")}


def one_line(result: Result, code: int, why: str, hint: str) -> None:
    assert result.rc == code, str(result)
    lines = result.err.splitlines()
    assert len(lines) == 2, str(result)
    assert lines[0].startswith("pyrun: "), str(result)
    assert lines[0].count(why) == 1, str(result)
    assert "system call" not in lines[0], str(result)
    assert lines[1].startswith("hint: "), str(result)
    assert hint in lines[1], str(result)


@pytest.mark.parametrize("command", ["run", "detached", "create", "import", "load", "volume", "tag"])
def test_full_disk(small: Pyrun, disk: Disk, busybox_tar: str, tmp_path: Path, command: str) -> None:
    """The new thing is lost, with the reason; what was there stays, and with room again it works."""
    saved = f"{tmp_path}/saved.tar"
    small.ok("save", "-o", saved, "busybox")
    words = {
        "run": ["run", "--name", "full", "busybox", "true"],
        "detached": ["run", "-d", "--name", "full", "-p", "80", "-v", "/data", "busybox", "true"],
        "create": ["create", "--name", "full", "-v", "/data", "busybox", "true"],
        "import": ["import", "--change", "CMD x", busybox_tar, "other"],
        "load": ["load", "-i", saved],
        "volume": ["volume", "create", "full"],
        "tag": ["tag", "busybox", "other"],
    }[command]
    if command == "load":
        small.ok("rmi", "busybox")
    before = files_below(small)
    with full(disk):
        failed = small(*words)
        left = everything_left(small)
        after = files_below(small)
    one_line(failed, 125 if words[0] == "run" else 1, *NO_SPACE)
    assert not left
    assert after - before - {f"{small.paths.data}/{name}" for name in ("names", "containers", "volumes")} == set()
    assert before - after == set()
    small.ok(*words)
    small.ok("run", "--rm", "busybox", "true")


def test_disk_that_fills_up_meanwhile(small: Pyrun, disk: Disk) -> None:
    """Containers that are there can be listed, started or not, stopped and removed on a full disk; nothing is lost."""
    small.ok("run", "-d", "--name", "running", "busybox", "sleep", "600")
    small.ok("run", "--name", "ended", "busybox", "echo", "hello")
    with full(disk):
        assert small.ok("ps", "-a", "--format", "{{.Names}}").split() == ["ended", "running"]
        assert small.ok("logs", "ended") == "hello"
        failed = small("start", "ended")
        one_line(failed, 1, *NO_SPACE)
        assert small.ok("inspect", "-f", "{{.State.Status}}", "ended") == "exited"
        assert small.ok("inspect", "-f", "{{.State.Status}}", "running") == "running"
        assert small.ok("exec", "running", "echo", "there") == "there"
        small.ok("rm", "ended")
        small.ok("rm", "-f", "running")
    assert_nothing_left(small, "removing on a full disk")
    assert small.ok("run", "--rm", "busybox", "echo", "again") == "again"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--name", "none", "busybox", "true"],
        ["create", "--name", "none", "busybox", "true"],
        ["volume", "create", "none"],
        ["tag", "busybox", "other"],
        ["rmi", "busybox"],
    ],
    ids=lambda words: words[0],
)
def test_read_only_data_root(small: Pyrun, disk: Disk, words: list[str]) -> None:
    """Said in one line; what only reads goes on working."""
    disk.remount("ro")
    try:
        one_line(small(*words), 125 if words[0] == "run" else 1, *READ_ONLY)
        assert "busybox" in small.ok("images")
        assert small.ok("ps", "-aq") == ""
    finally:
        disk.remount("rw")
    assert_nothing_left(small, " ".join(words))


# ---- archives --------------------------------------------------------------------------------------------------------


def flipped(content: bytes, needle: bytes) -> bytes:
    """The same with one byte after the needle changed."""
    at = content.index(needle) + len(needle)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage", ["truncated", "half a block", "no archive", "tampered layer", "tampered config", "gzip"]
)
def test_damaged_image_archive(fresh: Pyrun, tmp_path: Path, damage: str) -> None:
    """load refuses it in one line, and stores nothing of it."""
    good = tmp_path / "good.tar"
    fresh.ok("save", "-o", str(good), "busybox")
    fresh.ok("rmi", "busybox")  # what is in the store already would not be read again
    content = good.read_bytes()
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "half a block":
        content = content[: len(content) // 3 + 77]
    elif damage == "no archive":
        content = b"not an archive at all\n" * 1000
    elif damage == "tampered layer":
        content = flipped(content, b"root:x:0:0:")
    elif damage == "tampered config":
        content = flipped(content, b'"architecture":"')
    else:
        import gzip

        content = gzip.compress(content, 1)[:-200]
    bad = tmp_path / "bad.tar"
    bad.write_bytes(content)
    before = files_below(fresh)
    done = fresh("load", "-i", str(bad))
    assert done.rc == 1, str(done)
    assert done.out == "", str(done)
    assert len(done.err.splitlines()) <= 2, str(done)
    assert done.err.startswith("pyrun: "), str(done)
    assert "internal error" not in done.err, str(done)
    assert files_below(fresh) == before
    assert_nothing_left(fresh, f"loading an archive that is {damage}")
    fresh.ok("load", "-i", str(good))
    fresh.ok("run", "--rm", "busybox", "true")


@pytest.mark.parametrize("damage", ["truncated", "no archive", "missing"])
def test_damaged_rootfs_archive(fresh: Pyrun, busybox_tar: str, tmp_path: Path, damage: str) -> None:
    """import refuses it, and stores nothing of it."""
    bad = tmp_path / "bad.tar"
    if damage != "missing":
        content = Path(busybox_tar).read_bytes()
        bad.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"no tar\n" * 1000)
    before = files_below(fresh)
    done = fresh("import", str(bad), "bad:latest")
    assert done.rc == 1, str(done)
    assert len(done.err.splitlines()) <= 2, str(done)
    assert done.err.startswith("pyrun: "), str(done)
    assert "internal error" not in done.err, str(done)
    assert files_below(fresh) == before
    assert "bad " not in fresh.ok("images")


# ---- damaged state ---------------------------------------------------------------------------------------------------


DAMAGES = {
    "empty": b"",
    "cut off": b'{"id": "12',
    "no object": b"[1, 2]\n",
    "binary": bytes(range(256)),
    "other fields": b'{"colour": "red"}\n',
    "missing": None,
}


@pytest.mark.parametrize("file", ["container.json", "state.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_record(pyrun: Pyrun, base_image: str, file: str, damage: str) -> None:
    """A damaged file spoils its own container only: others are listed and run, `rm -f` removes it."""
    broken = pyrun.ok("create", "--name", "broken", base_image, "true")
    pyrun.ok("create", "--name", "sound", base_image, "true")
    path = Path(pyrun.paths.container(broken), file)
    content = DAMAGES[damage]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    listed = pyrun("ps", "-a", "--format", "{{.Names}}")
    assert listed.out.split() == ["sound"], str(listed)
    assert broken[:12] in listed.err, str(listed)
    assert file in listed.err, str(listed)
    for words in (["start", "broken"], ["inspect", "broken"], ["rm", "broken"]):
        done = pyrun(*words)
        assert done.rc == 1, str(done)
        first, *rest = done.err.splitlines()
        assert first.startswith(f"pyrun: container {broken[:12]}: {file} is "), str(done)
        assert rest == [f"hint: `pyrun rm -f {broken[:12]}` removes it"], str(done)
    assert pyrun.ok("start", "sound") == "sound"
    assert pyrun.ok("wait", "sound") == "0"
    assert pyrun.ok("rm", "-f", "broken") == "broken"
    assert not path.parent.exists()
    assert pyrun.ok("create", "--name", "broken", base_image, "true") != broken


def test_state_of_another_version(pyrun: Pyrun, base_image: str) -> None:
    """A status that there is not is damage too, and said so."""
    broken = pyrun.ok("create", "--name", "broken", base_image, "true")
    path = Path(pyrun.paths.container(broken), "state.json")
    state = json.loads(path.read_bytes())
    path.write_text(json.dumps({**state, "status": "levitating"}))
    done = pyrun("start", "broken")
    assert_refused(
        done, 1, f"container {broken[:12]}: state.json is damaged (unknown status 'levitating')", hint="rm -f"
    )


# ---- the run root ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run_root(fresh: Pyrun, tmp_path: Path) -> Iterator[Pyrun]:
    """A Pyrun whose run root the test makes as it likes."""
    pyrun = Pyrun(fresh.command, Paths(fresh.paths.data, f"{tmp_path}/run"))
    yield pyrun
    if os.path.isdir(pyrun.paths.run) and not os.path.islink(pyrun.paths.run):
        leftovers.end_instance(pyrun)


def test_run_root_that_others_may_enter(run_root: Pyrun) -> None:
    """It is closed to them before anything is put into it."""
    os.mkdir(run_root.paths.run, 0o777)
    os.chmod(run_root.paths.run, 0o777)
    assert run_root.ok("run", "--rm", "busybox", "echo", "ok") == "ok"
    assert os.stat(run_root.paths.run).st_mode & 0o777 == 0o700


def test_run_root_of_somebody_else(run_root: Pyrun) -> None:
    """Its owner could put a socket there: refused."""
    os.mkdir(run_root.paths.run, 0o700)
    os.chown(run_root.paths.run, 1000, 1000)
    done = run_root("run", "--rm", "busybox", "true")
    assert_refused(done, 125, f"use the run root {run_root.paths.run}: it belongs to uid 1000", hint="--run-root")
    assert os.listdir(run_root.paths.run) == []


@pytest.mark.parametrize("obstacle", ["file", "dangling link", "below a file"])
def test_run_root_that_is_no_directory(run_root: Pyrun, obstacle: str) -> None:
    """One line, and a way out."""
    path = Path(run_root.paths.run)
    if obstacle == "file":
        path.touch()
    elif obstacle == "dangling link":
        path.symlink_to("/no/such/directory")
    else:
        path.touch()
        run_root = Pyrun(run_root.command, Paths(run_root.paths.data, f"{path}/below"))
    done = run_root("run", "--rm", "busybox", "true")
    assert_refused(done, 125, f"use the run root {run_root.paths.run}: …", hint="--run-root")


def test_data_root_that_is_no_directory(run_root: Pyrun, tmp_path: Path) -> None:
    """The same for the data root."""
    (tmp_path / "file").touch()
    pyrun = Pyrun(run_root.command, Paths(f"{tmp_path}/file", run_root.paths.run))
    done = pyrun("run", "--rm", "busybox", "true")
    assert done.rc == 125, str(done)
    assert done.err.splitlines()[0].startswith(f"pyrun: {tmp_path}/file"), str(done)
    assert done.err.splitlines()[0].endswith(": not a directory"), str(done)
