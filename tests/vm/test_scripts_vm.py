# SPDX-License-Identifier: Apache-2.0
"""scripts/vm itself: exit codes, streams, the terminal, time limits, and that nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vm.conftest import Vm

pytestmark = pytest.mark.timeout(600)
CHECKOUT = Path(__file__).resolve().parents[2]


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if int(status.read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def qemu_of(process: subprocess.Popen[bytes]) -> int:
    """The pid of the qemu that a running scripts/vm has started."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for pid in children(process.pid):
            with contextlib.suppress(OSError):
                if "qemu-system" in os.readlink(f"/proc/{pid}/exe"):
                    return pid
        time.sleep(0.05)
    raise AssertionError("scripts/vm has started no qemu")


def is_gone(pid: int) -> bool:
    """Whether the process ends within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def started(vm: Vm, *args: str) -> subprocess.Popen[bytes]:
    """A scripts/vm whose command has printed its first line."""
    process = subprocess.Popen(vm.argv(*args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"up\n", process.stderr and process.stderr.read().decode()
    return process


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("/no/such", 127)])
def test_exit_code_is_that_of_the_command(vm: Vm, command: str, code: int) -> None:
    """The command's exit code comes back, with 128+N for signal N."""
    assert vm("--", command).returncode == code


def test_words_are_a_program_and_its_arguments(vm: Vm) -> None:
    """Several words reach the program unchanged, whatever is in them."""
    words = ["printf", "%s|", "two words", "a'b\"c", "$HOME", "", "line\nline", "käse"]
    done = vm("--", *words)
    assert done.stdout.decode() == "two words|a'b\"c|$HOME||line\nline|käse|"


def test_streams_are_apart_and_complete(vm: Vm) -> None:
    """Megabytes of binary output arrive whole, stdout and stderr each on its own."""
    done = vm("--", "head -c 3000000 /dev/zero; head -c 1000000 /dev/zero | tr '\\0' '\\377' >&2")
    assert (done.returncode, len(done.stdout), len(done.stderr)) == (0, 3_000_000, 1_000_000)
    assert set(done.stdout) == {0}
    assert set(done.stderr) == {255}


def test_output_streams_while_the_command_runs(vm: Vm) -> None:
    """A line is there before the command ends."""
    process = started(vm, "--", "echo up; sleep 600")
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_stdin_reaches_the_command_when_asked(vm: Vm) -> None:
    """With --stdin the command reads all of stdin, to its end."""
    data = bytes(range(256)) * 4000
    assert vm("--stdin", "--", "cat", stdin=data).stdout == data


def test_stdin_is_empty_unless_asked(vm: Vm) -> None:
    """Without --stdin the command finds the end of file: a loop over lines may call scripts/vm."""
    assert vm("--", "cat", stdin=b"not for the guest").stdout == b""


def test_script_on_stdin_without_a_command(vm: Vm) -> None:
    """With no command and no terminal, a shell runs what comes on stdin."""
    done = vm(stdin=b"echo from the shell\nexit 5\n")
    assert (done.returncode, done.stdout) == (5, b"from the shell\n")


def test_shell_on_a_terminal(vm: Vm) -> None:
    """With no command, on a terminal: a shell of the terminal's size, with job control and its own exit code."""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(vm.argv()[0], vm.argv())
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    seen = ""
    keys = iter([b"stty size; tty\r", b"sleep 600\r", b"\x03", b"exit 9\r"])
    waiting_for = iter(["# ", "/dev/hvc0", "sleep 600", "^C"])
    wanted = next(waiting_for)
    end = time.monotonic() + 120
    while time.monotonic() < end and select.select([terminal], [], [], 60)[0]:
        try:
            seen += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # EIO: the other side is closed
            break
        if wanted and wanted in seen:
            time.sleep(0.5)  # for what the shell still has to do, such as to start the program
            os.write(terminal, next(keys))
            wanted = next(waiting_for, "")
    else:
        os.kill(pid, signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 9, seen
    assert "33 101" in seen, seen
    assert "job control" not in seen, seen


def test_timeout_is_124_and_one_line(vm: Vm) -> None:
    """A command that takes longer than --timeout is ended with exit code 124 and one line."""
    done = vm("--timeout", "1.5", "--", "echo before; sleep 600")
    assert (done.returncode, done.stdout) == (124, b"before\n")
    assert done.stderr.decode() == "vm: the command did not end within 1.5 s\n"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--timeout", "-1"], "'-1' is not a number of seconds above 0"),
        (["--memory", "1_0"], "'1_0' is not a whole number above 0"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["--venv", "/etc", "--", "true"], "/etc is no virtual environment"),
        (["--out", "/dev/null/x", "--", "true"], "Not a directory"),
        (["--tty", "--", "true"], "--tty needs a terminal on stdin"),
    ],
)
def test_fault_is_125_and_one_line(vm: Vm, args: list[str], text: str) -> None:
    """What cannot be done ends with exit code 125 and one line that says why."""
    done = vm(*args)
    assert done.returncode == 125
    assert done.stdout == b""
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("vm: ")
    assert text in line


def test_ordinary_user_is_told(vm: Vm) -> None:
    """Without root: exit code 125 and a line that says so."""
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    done = subprocess.run([*drop, *vm.argv("--", "true")], capture_output=True, check=False, timeout=60)
    assert (done.returncode, b"needs root" in done.stderr) == (125, True), done.stderr


def test_dead_qemu_is_125(vm: Vm) -> None:
    """When qemu is killed under a command, the exit code is 125 and the line names the signal."""
    process = started(vm, "--", "echo up; sleep 600")
    os.kill(qemu_of(process), signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (125, b"vm: qemu ended: it was killed by SIGKILL\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_killed_run_leaves_nothing(vm: Vm, number: signal.Signals) -> None:
    """Whatever kills scripts/vm, qemu goes with it, and no half-made entry is in the cache."""
    process = started(vm, "--", "echo up; sleep 600")
    qemu = qemu_of(process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert is_gone(qemu)


def test_bad_snapshots_are_made_again(vm: Vm) -> None:
    """SIGKILL while a snapshot is being made leaves nothing that the next run would take for one, and a damaged
    snapshot is replaced by a new one."""
    args = ("--memory", "512")
    process = subprocess.Popen(vm.argv(*args, "--prepare"), stderr=subprocess.PIPE)
    qemu = qemu_of(process)
    time.sleep(1)
    process.kill()
    process.communicate(timeout=60)
    assert is_gone(qemu)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyrun-vm"
    for _ in range(2):
        done = vm(*args, "--", "grep MemTotal /proc/meminfo")
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[1]) < 512 * 1024
        os.truncate(max(cache.glob("snapshot-tiny-*/state"), key=lambda file: file.parent.stat().st_mtime), 1000)
    assert b"new snapshot" in done.stderr


def test_writes_are_thrown_away(vm: Vm) -> None:
    """What the command writes into the checkout and the root is seen by nobody afterwards."""
    name = f"written-by-a-test-{os.getpid()}"
    assert vm("--", f"touch {name} /root/{name} && ls {name}").returncode == 0
    assert vm("--", f"test ! -e {name} && test ! -e /root/{name}").returncode == 0
    assert not (CHECKOUT / name).exists()


def test_new_file_of_the_checkout_is_seen(vm: Vm) -> None:
    """The checkout in the VM is the one of this moment, though the machine is resumed from a snapshot."""
    new = CHECKOUT / "build" / f"test-vm-{os.getpid()}"
    new.parent.mkdir(exist_ok=True)
    try:
        new.write_text("fresh\n", encoding="utf-8")
        done = vm("--", "cat", str(new))
    finally:
        new.unlink()
    assert done.stdout == b"fresh\n", done.stderr


def test_out_is_shared(vm: Vm, tmp_path: Path) -> None:
    """Files cross the border both ways in the directory of --out."""
    (tmp_path / "given").write_text("to the guest\n", encoding="utf-8")
    done = vm("--out", str(tmp_path), "--", "cat /out/given && echo from the guest > /out/made")
    assert (done.returncode, done.stdout) == (0, b"to the guest\n")
    assert (tmp_path / "made").read_text(encoding="utf-8") == "from the guest\n"


def test_host_is_readable_and_read_only(vm: Vm) -> None:
    """/host is the host's root file system, and nothing can be written to it."""
    done = vm("--", "cat /host/etc/hostname && ! touch /host/etc/written 2>/dev/null")
    assert (done.returncode, done.stdout) == (0, Path("/etc/hostname").read_bytes())


def test_virtual_environment_works(vm: Vm) -> None:
    """The host's virtual environment is at its own path in the guest, and its packages load."""
    done = vm("--", "python -c 'import sys, pyroute2, cffi, prctl; print(sys.prefix)'")
    assert (done.returncode, done.stdout.decode()) == (0, f"{sys.prefix}\n"), done.stderr


def test_clock_is_right_and_random_bytes_differ(vm: Vm) -> None:
    """A resumed machine has the time of now, and not the random state of the snapshot."""
    command = "date +%s.%N; head -c 16 /dev/urandom | od -An -tx1"
    before = time.time()
    first = vm("--", command).stdout.decode().splitlines()
    after = time.time()
    second = vm("--", command).stdout.decode().splitlines()
    assert before - 5 < float(first[0]) < after + 0.1  # a busy host may take its time to pass it on
    assert first[1] != second[1]


def test_two_at_once(vm: Vm) -> None:
    """Two VMs run at the same time without knowing of each other."""
    one, other = started(vm, "--", "echo up; sleep 600"), started(vm, "--", "echo up; sleep 600")
    assert qemu_of(one) != qemu_of(other)
    for process in (one, other):
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("flavour", [(), ("--systemd",)])
def test_signals_are_at_their_defaults(vm: Vm, flavour: tuple[str, ...]) -> None:
    """The command starts with no signal ignored or blocked, whatever shell or service manager is behind it."""
    done = vm(*flavour, "--", "grep", "-E", "Sig(Ign|Blk)", "/proc/self/status")
    assert [int(line.split()[1], 16) for line in done.stdout.splitlines()] == [0, 0], done


@pytest.mark.parametrize(("flavour", "name"), [((), "busybox"), (("--systemd",), "systemd")])
def test_flavours(vm: Vm, flavour: tuple[str, ...], name: str) -> None:
    """PID 1 is a tiny shell, or systemd with a bus that answers."""
    command = "cat /proc/1/comm"
    if flavour:
        command += " && systemctl is-active vm.target && systemd-run --wait --quiet true"
    done = vm(*flavour, "--", command)
    assert (done.returncode, done.stdout.decode().split()[0]) == (0, name), done.stderr
