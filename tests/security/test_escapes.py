# SPDX-License-Identifier: Apache-2.0
"""Known escapes, each tried against pyrun: a test sets the attack up and shows that the host is untouched.

One test per class of CVE. Images are made here: busybox with what the attack needs changed.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli import Pyrun

pytestmark = requires(root=True)

Change = dict[str, tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]]


def link(name: str, target: str) -> tarfile.TarInfo:
    """A symbolic link as a tar entry."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def regular(name: str, content: bytes, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    """A file as a tar entry."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def special(name: str, kind: bytes, major: int = 0, minor: int = 0) -> tarfile.TarInfo:
    """A device or FIFO as a tar entry."""
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor, info.mode = kind, major, minor, 0o666
    return info


@pytest.fixture
def image(pyrun: Pyrun, busybox_tar: str, tmp_path: Path) -> Callable[[str, Change], str]:
    """Makes an image: busybox without what `changes` names, with what they hold instead."""

    def make(name: str, changes: Change) -> str:
        path = tmp_path / f"{name}.tar"
        with tarfile.open(busybox_tar) as source, tarfile.open(path, "w") as target:
            for member in source:
                place = member.name.removeprefix("./").rstrip("/")
                if any(place == gone or place.startswith(f"{gone}/") for gone in changes):
                    continue
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
            for change in changes.values():
                info, content = change if isinstance(change, tuple) else (change, b"")
                target.addfile(info, io.BytesIO(content))
        pyrun.ok("import", "--change", 'CMD ["sh"]', str(path), f"{name}:latest")
        return f"{name}:latest"

    return make


def test_the_program_behind_proc_self_exe_is_a_sealed_memfd(pyrun: Pyrun, image: Callable[[str, Change], str]) -> None:
    """CVE-2019-5736: an image whose entrypoint is /proc/self/exe gets pyrun-init itself, and cannot write to it."""
    script = b"#!/proc/self/exe\n"
    name = image("selfexe", {"evil": regular("evil", script)})
    for command in (["/proc/self/exe"], ["/evil"]):
        result = pyrun("run", "--rm", name, *command)
        assert result.rc in (125, 126, 127), str(result)
    # A process of the container sees its own program behind PID 1's exe, never anything of the host's.
    out = pyrun.ok("run", "--rm", "--init", name, "sh", "-c", "echo x 2>/dev/null > /proc/1/exe || echo refused")
    assert out == "refused"


def test_no_descriptor_of_the_host_reaches_the_program(pyrun: Pyrun, base_image: str) -> None:
    """CVE-2024-21626, CVE-2016-9962: only 0, 1, 2 are open at exec, in `run`, `run --init` and `exec`."""
    listing = "ls -l /proc/self/fd /proc/1/fd | grep -v -e total -e 'self/fd:' -e '1/fd:' -e '^$'"
    for extra in ([], ["--init"]):
        out = pyrun.ok("run", "--rm", *extra, base_image, "sh", "-c", listing)
        targets = [line.split(" -> ")[1] for line in out.splitlines() if " -> " in line]
        assert targets, out
        for target in targets:
            # its own output is a FIFO in the run root: no directory, so no way to anywhere
            assert target.startswith(("pipe:", "/dev/null", "/dev/pts", "/proc/")) or target.endswith(
                ("/stdout", "/stderr")
            ), out
    pyrun.ok("run", "-d", "--name", "fds", base_image, "sleep", "60")
    out = pyrun.ok("exec", "fds", "sh", "-c", "ls /proc/self/fd")
    assert set(out.split()) <= {"0", "1", "2", "3"}, out  # 3 is ls's own, of the directory it reads
    pyrun.ok("rm", "-f", "fds")


@pytest.mark.parametrize("fd", [3, 4, 5, 6, 7, 8, 9, 10])
def test_working_directory_through_a_descriptor(pyrun: Pyrun, base_image: str, fd: int) -> None:
    """CVE-2024-21626: /proc/self/fd/N as the working directory must not lead to a directory of the host."""
    for how in (f"/proc/self/fd/{fd}", f"/proc/self/fd/{fd}/../../../.."):
        result = pyrun("run", "--rm", "-w", how, base_image, "sh", "-c", "pwd; ls -d /proc/self/cwd/etc/debian_version")
        assert result.rc != 0, str(result)
        assert "debian_version\n" not in result.out, str(result)


def test_exec_working_directory_through_a_descriptor(pyrun: Pyrun, base_image: str) -> None:
    """The same by `exec -w`."""
    pyrun.ok("run", "-d", "--name", "cwd", base_image, "sleep", "60")
    for fd in range(3, 12):
        result = pyrun("exec", "-w", f"/proc/self/fd/{fd}", "cwd", "ls", "-a")
        assert result.rc != 0, str(result)
        assert result.out == ""
    pyrun.ok("rm", "-f", "cwd")


@pytest.mark.parametrize("target", ["proc", "sys"])
def test_kernel_file_systems_are_not_mounted_through_a_link(
    pyrun: Pyrun, image: Callable[[str, Change], str], target: str
) -> None:
    """CVE-2019-19921, CVE-2023-27561: a /proc or /sys that is a symbolic link is refused."""
    name = image(f"link{target}", {target: link(target, "/tmp")})
    result = pyrun("run", "--rm", name, "true")
    assert result.rc == 125, str(result)
    assert target in result.err


def test_dev_as_a_link_does_not_reach_the_host(
    pyrun: Pyrun, image: Callable[[str, Change], str], tmp_path: Path
) -> None:
    """CVE-2026-41579, CVE-2026-47766: an image's /dev that points to a host path is resolved in the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    name = image("linkdev", {"dev": link("dev", str(outside))})
    result = pyrun("run", "--rm", name, "ls", "/dev/null")
    assert list(outside.iterdir()) == [], str(result)
    assert result.rc != 0 or result.out == "/dev/null\n", str(result)


def test_masks_come_from_the_hosts_null_device(pyrun: Pyrun, image: Callable[[str, Change], str]) -> None:
    """CVE-2025-31133: an image's /dev/null that is something else is never used to mask a file of /proc."""
    name = image(
        "fakenull", {"dev": special("dev", tarfile.DIRTYPE), "dev/null": link("dev/null", "/proc/sysrq-trigger")}
    )
    out = pyrun.ok("run", "--rm", name, "sh", "-c", "ls -lL /proc/keys; cat /proc/keys | wc -c")
    assert "1,   3" in out, out
    assert out.endswith("0")


def test_masked_and_readonly_paths_hold(pyrun: Pyrun, base_image: str) -> None:
    """What tells about or changes the host is empty or cannot be written, also by the container's root."""
    script = """
      echo c > /proc/sysrq-trigger && echo BAD sysrq
      echo x > /proc/sys/kernel/core_pattern && echo BAD core_pattern
      echo 1 > /proc/sys/vm/drop_caches && echo BAD drop_caches
      ls /sys/firmware | grep . && echo BAD firmware
      cat /proc/timer_list | grep . && echo BAD timer_list
      mkdir /sys/fs/cgroup/x && echo BAD cgroup
      chmod 777 /proc/keys && echo BAD chmod of the mask
      mount -t tmpfs x /mnt && echo BAD mount
      umount /proc/keys && echo BAD umount
      echo end
    """
    result = pyrun("run", "--rm", base_image, "sh", "-c", script)
    assert result.out == "end\n", str(result)
    assert oct(os.stat("/dev/null").st_mode & 0o777) == "0o666"


def test_mount_target_swapped_for_a_link_while_starting(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """CVE-2021-30465: one container swaps a directory of a shared volume for a link to /; another mounts below it."""
    volume = tmp_path / "volume"
    (volume / "real").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "sentinel").write_text("host")
    swap = "cd /v; while :; do mv real keep; ln -s /../../../../.. real; rm real; mv keep real; done 2>/dev/null"
    pyrun.ok("run", "-d", "--name", "swapper", "-v", f"{volume}:/v", base_image, "sh", "-c", swap)
    before = Path("/proc/self/mountinfo").read_text()
    for _ in range(15):
        result = pyrun(
            "run",
            "--rm",
            "-v",
            f"{volume}:/v",
            "-v",
            f"{secret}:/v/real/deep:ro",
            base_image,
            "cat",
            "/v/real/deep/sentinel",
        )
        assert result.out in ("", "host"), str(result)
    assert Path("/proc/self/mountinfo").read_text() == before, "nothing is mounted on the host"
    assert not Path("/deep").exists()
    pyrun.ok("rm", "-f", "swapper")


def test_bind_target_through_a_link_stays_inside(
    pyrun: Pyrun, image: Callable[[str, Change], str], tmp_path: Path
) -> None:
    """CVE-2024-45310: a mount point that an image's link sends outside is made inside the root."""
    outside = tmp_path / "outside"
    name = image("linkdata", {"data": link("data", f"/../../../../../..{outside}")})
    source = tmp_path / "source"
    source.write_text("from the host\n")
    out = pyrun.ok("run", "--rm", "-v", f"{source}:/data/file", name, "cat", "/data/file")
    assert out == "from the host"
    assert not outside.exists()


@pytest.mark.parametrize(
    "user", ["-1", "4294967295", "4294967296", "99999999999999999999", "1_0", "+1", "0x0", "١", "0:-1"]
)
def test_users_out_of_range_never_become_root(pyrun: Pyrun, base_image: str, user: str) -> None:
    """CVE-2024-40635, CVE-2026-46680, CVE-2026-30892: refused, for `run` and `exec`."""
    result = pyrun("run", "--rm", "-u", user, base_image, "id", "-u")
    assert result.rc == 125, str(result)
    assert result.out == ""


def test_user_file_that_is_a_fifo_or_huge(pyrun: Pyrun, image: Callable[[str, Change], str]) -> None:
    """CVE-2024-9676, CVE-2026-47262: reading /etc/passwd of an image never blocks and never fills the memory."""
    fifo = image("fifopasswd", {"etc/passwd": special("etc/passwd", tarfile.FIFOTYPE)})
    result = pyrun("run", "--rm", "-u", "somebody", fifo, "id", timeout=20)
    assert result.rc == 125, str(result)
    huge = image("hugepasswd", {"etc/passwd": regular("etc/passwd", b"x:x:1:1:::\n" * (3 << 20), 0o644)})
    result = pyrun("run", "--rm", "-u", "x", huge, "id", timeout=20)
    assert result.rc == 125, str(result)
    assert "larger than" in result.err
    device = image("devpasswd", {"etc/passwd": special("etc/passwd", tarfile.CHRTYPE, 1, 5)})
    assert pyrun("run", "--rm", "-u", "x", device, "id", timeout=20).rc == 125


def test_user_file_behind_a_link_is_the_containers(
    pyrun: Pyrun, image: Callable[[str, Change], str], tmp_path: Path
) -> None:
    """A link out of the image is resolved inside it: no user of the host's files."""
    outside = tmp_path / "passwd"
    outside.write_text("ghost:x:4242:4242::/:/bin/sh\n")
    name = image("linkpasswd", {"etc/passwd": link("etc/passwd", f"../../../../../../..{outside}")})
    result = pyrun("run", "--rm", "-u", "ghost", name, "id", "-u")
    assert result.rc != 0
    assert "4242" not in result.out


@pytest.mark.parametrize(
    "sysctl",
    ["kernel.core_pattern=|/bin/x", "net.ipv4.ip_forward=1\nkernel.core_pattern=x", "net/../kernel/core_pattern=x",
     "net.ipv4/../../kernel/core_pattern=x", "kernel.shm_rmid_forced=1+kernel.core_pattern=x"],
)  # fmt: skip
def test_sysctl_smuggling(pyrun: Pyrun, base_image: str, sysctl: str) -> None:
    """CVE-2022-0811: only parameters of the container's own namespaces, one a time."""
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    result = pyrun("run", "--rm", "--sysctl", sysctl, base_image, "true")
    assert result.rc == 125, str(result)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_capability_sets(pyrun: Pyrun, base_image: str) -> None:
    """CVE-2022-24769 and its like: inheritable and ambient are empty, for root, for a user, and for `exec`."""
    show = "grep -e CapInh -e CapAmb /proc/self/status"
    pyrun.ok("run", "-d", "--name", "caps", base_image, "sleep", "60")
    for out in (
        pyrun.ok("run", "--rm", base_image, "sh", "-c", show),
        pyrun.ok("run", "--rm", "-u", "1000", "--cap-add", "NET_ADMIN", base_image, "sh", "-c", show),
        pyrun.ok("exec", "caps", "sh", "-c", show),
        pyrun.ok("exec", "--privileged", "caps", "sh", "-c", show),
    ):
        assert {int(line.split()[1], 16) for line in out.splitlines()} == {0}, out
    pyrun.ok("rm", "-f", "caps")


def test_the_callers_environment_stays_outside(pyrun: Pyrun, base_image: str) -> None:
    """CVE-2021-3602 and Python's own: nothing of it is in the container, and the container's is not Python's."""
    env = {"SECRET_TOKEN": "hunter2", "LD_PRELOAD": "", "PYTHONPATH": "/nonexistent"}
    out = pyrun.ok("run", "--rm", "-e", "PYTHONHOME=/evil", "-e", "LD_PRELOAD=/evil.so", base_image, "env", env=env)
    assert "hunter2" not in out
    assert "PYTHONHOME=/evil" in out


def test_exec_is_seen_from_inside_only_when_it_has_nothing_left(pyrun: Pyrun, base_image: str) -> None:
    """CVE-2016-9962, CVE-2022-1227: a process of the container that may trace (SYS_PTRACE) sees pyrun-init during an
    `exec`, but never with more capabilities than the program gets, and without a descriptor of the host's."""
    watch = (
        "while [ ! -e /stop ]; do for p in /proc/[0-9]*; do case $(cat $p/comm 2>/dev/null) in pyrun*) "
        "grep -e CapPrm -e CapEff -e CapBnd $p/status; ls -l $p/fd;; esac; done; done 2>/dev/null; echo done"
    )
    pyrun.ok("run", "-d", "--name", "watcher", "--cap-add", "SYS_PTRACE", base_image, "sh", "-c", watch)
    granted = int(pyrun.ok("exec", "watcher", "sh", "-c", "grep CapBnd /proc/1/status").split()[1], 16)
    for _ in range(30):
        pyrun.ok("exec", "watcher", "true")
    pyrun.ok("exec", "watcher", "touch", "/stop")
    pyrun("wait", "watcher", timeout=120)
    out = pyrun.ok("logs", "watcher")
    assert "CapPrm" in out, "the attack must have seen it at least once"
    assert out.endswith("done")
    for line in out.splitlines():
        if line.startswith("Cap"):
            assert int(line.split()[1], 16) & ~granted == 0, line
        if " -> " in line:
            target = line.split(" -> ")[1]
            assert target.startswith(("pipe:", "socket:", "/dev/null", "anon_inode:", "/memfd:")) or target == "/", line
    pyrun.ok("rm", "watcher")


def test_cgroup_of_the_container_is_all_it_sees(pyrun: Pyrun, base_image: str) -> None:
    """CVE-2023-25809, CVE-2022-0492: own cgroup namespace, read-only, no v1 hierarchy with a release_agent."""
    out = pyrun.ok(
        "run",
        "--rm",
        base_image,
        "sh",
        "-c",
        "cat /proc/self/cgroup | grep '^0::'; find /sys/fs/cgroup -name release_agent",
    )
    assert out == "0::/"


def test_device_nodes_of_the_image_open_nothing(pyrun: Pyrun, image: Callable[[str, Change], str]) -> None:
    """A disk's node in an image, or one made inside, is refused by the cgroup's device program."""
    major, minor = 254, 0
    name = image("disknode", {"disk": special("disk", tarfile.BLKTYPE, major, minor)})
    script = (
        f"head -c 1 /disk && echo BAD; mknod /d2 b {major} {minor}; head -c 1 /d2 && echo BAD; "
        "mknod /mem c 1 1; head -c1 /mem && echo BAD; echo end"
    )
    result = pyrun("run", "--rm", name, "sh", "-c", script)
    assert result.out == "end\n", str(result)


def test_container_names_cannot_leave_the_state_directory(pyrun: Pyrun, base_image: str) -> None:
    """`../x` and the like are refused before they become a path."""
    for name in ("../evil", "a/b", "..", ".hidden", "a\nb", "ａ"):
        result = pyrun("run", "--rm", "--name", name, base_image, "true")
        assert result.rc == 125, str(result)
