# SPDX-License-Identifier: Apache-2.0
"""Processes that the monitor owns: their output, input, terminals, signals, and their end."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest

from monitor_stage import SOON_S, Stage, gone, until
from pyrun.runtime.errors import Conflict, NotFound
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


# ---- output and exit


def test_output_goes_to_the_client_and_to_the_log(stage: Stage) -> None:
    """Both streams apart, the exit code, and everything in the log."""
    done = stage.client("run", "c", "echo out; echo err >&2; printf unfinished; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\nunfinished", "err\n", 7)
    assert stage.output("c") == b"out\nunfinished"
    assert stage.output("c", "stderr") == b"err\n"
    assert stage.asked("exited") == [{"what": "exited", "id": "c", "returncode": 7}]
    assert stage.sessions() == {}


def test_death_by_a_signal_is_128_and_the_signal(stage: Stage) -> None:
    """As a shell says it; the finisher is told the signal itself."""
    assert stage.client("run", "c", "kill -KILL $$").returncode == 137
    assert stage.asked("exited")[0]["returncode"] == -9


def test_a_detached_process_goes_on_without_a_client(stage: Stage) -> None:
    """The command returns at once; wait answers when it has ended and is cleaned up."""
    assert stage.client("run", "-d", "c", "sleep 0.7; echo done; exit 9").returncode == 0
    assert stage.sessions()["c"]["state"] == "running"
    assert stage.client("wait", "c").stdout == "9\n"
    assert stage.output("c") == b"done\n"
    assert len(stage.asked("exited")) == 1


def test_ten_megabytes_come_whole(stage: Stage) -> None:
    """Every byte, in order, with binary content; the log's bound keeps its last part."""
    script = "dd if=/dev/urandom bs=65536 count=160 2>/dev/null | tee copy"
    one = stage.popen("run", "c", f"cd {stage.base}; {script}")
    out, err = one.communicate(timeout=60)
    with open(f"{stage.base}/copy", "rb") as file:
        copy = file.read()
    assert (len(out), err, one.returncode) == (10_485_760, b"", 0)
    assert out == copy
    logged = stage.output("c")
    assert logged
    assert copy.endswith(logged)


def test_a_failed_start_gives_the_workers_code(stage: Stage) -> None:
    """The process was handed over, then the start failed: the client gets the worker's code, not the process's."""
    done = stage.client("run", "-f", "c", "exit 0")
    assert (done.returncode, done.stderr) == (127, "the start failed\n")
    until(lambda: not stage.sessions())


def test_a_worker_killed_before_the_hand_over_leaves_no_zombie(stage: Stage) -> None:
    """What it had started is our child; it ends with its gate, is reaped, and recovery runs."""
    pid = stage.start_monitor()
    assert stage.client("run", "-k", "c", "sleep 60").returncode == 137
    until(lambda: len(stage.asked("recover")) == 2)
    until(lambda: not [one for one in children(pid) if comm(one) != "pyrun-keeper"])


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(one) for one in file.read().split()]


def comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return "pyrun-keeper"


def test_started_connects_before_the_worker_has_ended(stage: Stage) -> None:
    """link.started(): stdin flows while the worker still works; the exit code waits for it."""
    began = time.monotonic()
    done = stage.client("run", "-s", "-i", "c", "read line; echo got $line; exit 4", input="x\n")
    assert (done.stdout, done.returncode) == ("got x\n", 4)
    assert time.monotonic() - began >= 0.5


def test_a_name_is_taken_while_its_process_runs(stage: Stage) -> None:
    """A second session of the same name is refused; the first goes on."""
    assert stage.client("run", "-d", "c", "sleep 60").returncode == 0
    done = stage.client("run", "-d", "c", "sleep 60")
    assert done.returncode == 125
    assert Conflict.__name__ in stage.log_text()
    assert stage.sessions()["c"]["state"] == "running"


def test_output_held_by_a_daemonised_child_does_not_hold_up_the_end(stage: Stage) -> None:
    """exec semantics of docker: the exit code comes a bounded time after the process has ended."""
    began = time.monotonic()
    done = stage.client("run", "-e", "x", "(sleep 30; echo late) & echo $!; exit 3")
    assert done.returncode == 3
    assert 1.5 < time.monotonic() - began < 15
    os.kill(int(done.stdout), signal.SIGKILL)


def test_exec_sessions_end_without_a_finisher_and_a_log(stage: Stage) -> None:
    """Pipes, no log, and nobody is asked to clean up."""
    done = stage.client("run", "-e", "-i", "x", "cat; exit 2", input="typed")
    assert (done.stdout, done.returncode) == ("typed", 2)
    assert stage.asked("exited") == []
    assert not os.path.exists(f"{stage.paths.container('x')}/log")


def test_a_finisher_that_dies_does_not_hold_up_the_client(stage: Stage) -> None:
    """SIGKILL in the clean-up: the client gets the exit code, and recovery runs."""
    assert stage.client("run", "dying-finisher", "exit 6").returncode == 6
    until(lambda: len(stage.asked("recover")) == 2)
    assert stage.sessions() == {}


def test_a_restart_is_done_by_the_monitor(stage: Stage) -> None:
    """The finisher says when; the client of the first life gets its exit code."""
    assert stage.client("run", "restart-me", "exit 3").returncode == 3
    until(lambda: len(stage.asked("exited")) == 2)
    assert stage.asked("call") == [{"what": "call", "name": "start", "args": {"id": "restart-me", "restart": True}}]
    assert [one["returncode"] for one in stage.asked("exited")] == [3, 0]


def test_a_pending_restart_can_be_cancelled(stage: Stage) -> None:
    """As `stop` does: no start follows."""
    stage.start_monitor()
    stage.call("timer", key="restart c", after_s=0.3, run="start", args={"id": "c"})
    assert stage.call("cancel-restart", id="c") == {"cancelled": True}
    time.sleep(0.6)
    assert stage.asked("call") == []


# ---- stdin, signals, several clients


def test_a_megabyte_of_stdin_reaches_a_slow_reader_whole(stage: Stage) -> None:
    """More than any buffer on the way; then end of file."""
    data = os.urandom(1 << 20)
    done = stage.client("run", "-i", "c", "sleep 0.5; cat", input=data, text=False)
    assert done.stdout == data


def test_a_signal_overtakes_stdin_that_nobody_reads(stage: Stage) -> None:
    """A process that does not read its stdin still gets SIGTERM."""
    one = stage.popen("run", "-i", "c", 'trap "exit 21" TERM; echo ready; while :; do sleep 0.05; done')
    assert one.stdin is not None
    assert one.stdout is not None
    os.set_blocking(one.stdin.fileno(), False)
    try:
        while one.stdin.write(bytes(65536)):
            pass
    except BlockingIOError:
        pass
    assert one.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    one.send_signal(signal.SIGTERM)
    assert one.wait(20) == 21
    one.stdin.raw.close()  # type: ignore[attr-defined]
    one.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 3])
def test_signals_of_the_client_reach_the_process(stage: Stage, number: int) -> None:
    """--sig-proxy: every catchable signal, real-time ones too."""
    with stage.popen(
        "run", "c", f'trap "echo caught; exit 5" {number:d}; echo ready; while :; do sleep 0.05; done'
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        until(lambda: stage.sessions()["c"]["attached"])
        time.sleep(0.1)  # ATTACHED is on its way: before it, SIGUSR1 would still end the client
        one.send_signal(number)
        assert one.stdout.read() == b"caught\n"
        assert one.wait(20) == 5


def test_without_sig_proxy_a_signal_ends_the_client_only(stage: Stage) -> None:
    """The process goes on."""
    with stage.popen("run", "-n", "c", "echo ready; sleep 60") as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        one.send_signal(signal.SIGTERM)
        assert one.wait(20) == -signal.SIGTERM
    assert stage.sessions()["c"]["state"] == "running"


def test_what_the_caller_ignores_stays_ignored(stage: Stage) -> None:
    """nohup: SIGHUP neither ends the client nor reaches the process."""
    script = 'trap "" HUP; exec "$@"'
    command = stage.command("run", "c", 'trap "exit 5" HUP; echo ready; sleep 1; exit 6')
    with subprocess.Popen(["sh", "-c", script, "sh", *command], env=stage.environ, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        one.send_signal(signal.SIGHUP)
        assert one.wait(20) == 6


def test_several_clients_see_the_same_output(stage: Stage) -> None:
    """Two attach to a detached process; both get its output and its exit code; neither what came before."""
    script = f"echo early; while [ ! -e {stage.base}/go ]; do sleep 0.05; done; echo late; exit 8"
    assert stage.client("run", "-d", "c", script).returncode == 0
    until(lambda: stage.output("c") == b"early\n")
    both = [stage.popen("attach", "c") for _ in range(2)]
    until(lambda: stage.sessions()["c"]["attached"] == 2)
    open(f"{stage.base}/go", "w").close()
    for one in both:
        assert one.communicate(timeout=20) == (b"late\n", b"")
        assert one.returncode == 8


def test_attach_to_nothing_is_refused(stage: Stage) -> None:
    """NotFound, for whoever asks."""
    stage.start_monitor()
    with pytest.raises(NotFound):
        stage.call("attach", id="nothing")


def test_stdin_of_a_detached_process_outlives_its_clients(stage: Stage) -> None:
    """-di: end of file from one client is not the process's; the next one types on."""
    assert stage.client("run", "-d", "-i", "c", "while read line; do echo got $line; done; echo end").returncode == 0
    first = stage.popen("attach", "c", "-i")
    assert first.stdin is not None
    first.stdin.write(b"one\n")
    first.stdin.close()
    until(lambda: stage.output("c") == b"got one\n")
    first.kill()
    first.wait()
    second = stage.popen("attach", "c", "-i")
    assert second.stdin is not None
    second.stdin.write(b"two\n")
    second.stdin.flush()
    until(lambda: stage.output("c") == b"got one\ngot two\n")
    second.kill()
    for one in (first, second):
        assert one.stdout is not None
        assert one.stderr is not None
        one.stdout.close()
        one.stderr.close()
        one.wait()


def test_a_killed_client_of_run_closes_stdin_and_leaves_the_process(stage: Stage) -> None:
    """-i: the process sees end of file, as when docker's client dies, and goes on."""
    one = stage.popen("run", "-i", "c", "cat; echo after; sleep 60")
    assert one.stdin is not None
    one.stdin.write(b"in\n")
    one.stdin.flush()
    until(lambda: stage.output("c") == b"in\n")
    one.kill()
    one.communicate()
    until(lambda: stage.output("c") == b"in\nafter\n")
    assert stage.sessions()["c"]["state"] == "running"


def test_a_client_that_does_not_read_holds_up_the_process_not_the_monitor(stage: Stage) -> None:
    """Back-pressure: the process stalls, others are served, memory is bounded; reading on releases it."""
    stage.start_monitor()
    one = stage.popen(
        "run", "c", "yes 0123456789012345678901234567890123456789012345678901234567890 | head -c 30000000"
    )
    pid = until(lambda: stage.sessions().get("c", {}).get("pid"))
    time.sleep(1.0)
    assert not gone(pid), "30 MB cannot have been written"
    monitor = stage.monitor_pid()
    with open(f"/proc/{monitor}/status") as file:
        resident_kb = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    assert resident_kb < 60_000
    assert stage.client("say", "served", "").stdout == "served\n"
    out, _ = one.communicate(timeout=60)
    assert len(out) == 30_000_000


def test_nonblocking_stdio_that_others_share_is_handled(stage: Stage) -> None:
    """stdin and stdout were made non-blocking by somebody else: nothing is lost, nothing spins."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stdin, feeder = os.pipe()
    os.set_blocking(stdin, False)
    one = subprocess.Popen(stage.command("run", "-i", "c", "cat"), env=stage.environ, stdin=stdin, stdout=writer)
    os.close(stdin)
    os.close(writer)
    time.sleep(0.5)
    data = os.urandom(300_000)
    received = bytearray()
    sent = 0
    os.set_blocking(feeder, False)
    os.set_blocking(reader, False)
    while len(received) < len(data):
        select.select([reader], [feeder] if sent < len(data) else [], [], SOON_S)
        try:
            sent += os.write(feeder, data[sent : sent + 65536]) if sent < len(data) else 0
        except BlockingIOError:
            pass
        try:
            received += os.read(reader, 5000)
        except BlockingIOError:
            pass
    os.close(feeder)
    assert one.wait(20) == 0
    assert bytes(received) == data
    os.close(reader)


def test_published_sockets_are_held_until_the_end(stage: Stage) -> None:
    """hold_sockets(): the port stays taken while the process runs, and is free after it."""
    import socket

    port = int(stage.client("hold", "c", f"while [ ! -e {stage.base}/go ]; do sleep 0.05; done").stdout)
    with pytest.raises(OSError):
        socket.create_server(("127.0.0.1", port))
    stage.kill_monitor()
    with pytest.raises(OSError):
        socket.create_server(("127.0.0.1", port))
    stage.start_monitor()
    with pytest.raises(OSError):
        socket.create_server(("127.0.0.1", port))
    open(f"{stage.base}/go", "w").close()
    until(lambda: not stage.sessions())
    socket.create_server(("127.0.0.1", port)).close()


# ---- terminals


class Terminal:
    """A client on a terminal of its own, as a user has it."""

    def __init__(self, stage: Stage, *words: str) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(33, 101)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            stage.command(*words), env=stage.environ, stdin=self.slave, stdout=self.slave, stderr=self.slave,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def expect(self, text: bytes) -> bytes:
        """Reads until `text` was seen; what came before it."""

        def found() -> bool:
            while select.select([self.master], [], [], 0)[0]:
                self.seen += os.read(self.master, 65536)
            return text in self.seen

        try:
            until(found)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(text)
        return before

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def end(self) -> int:
        """The exit code; the terminal must be as it was."""
        code = self.process.wait(20)
        assert termios.tcgetattr(self.slave) == self.before
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(stage: Stage) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*words: str) -> Terminal:
        made.append(Terminal(stage, *words))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_terminal_is_raw_sized_and_restored(stage: Stage, terminal: Callable[..., Terminal]) -> None:
    """Size of the user's terminal, changes of it, ^C as a byte for the process, and the old settings at the end."""
    traps = 'trap "stty size" WINCH; trap "echo int; exit 12" INT'
    script = f"sleep 0.5; stty size; {traps}; echo ready; while :; do sleep 0.05; done"
    one = terminal("run", "-i", "-t", "c", script)
    one.expect(b"33 101\r\nready\r\n")
    assert one.is_raw()
    one.resize(44, 55)
    one.expect(b"44 55\r\n")
    one.type(b"\x03")
    one.expect(b"int\r\n")
    assert one.end() == 12
    assert b"ready\r\n" in stage.output("c")


def test_detach_keys_leave_the_process_running(stage: Stage, terminal: Callable[..., Terminal]) -> None:
    """ctrl-p alone goes through, ctrl-p ctrl-q leaves with exit code 0; attach comes back."""
    stage.start_monitor()
    one = terminal("run", "-i", "-t", "c", "stty -echo -icanon; while :; do head -c 2 | od -An -c; done")
    until(lambda: stage.sessions().get("c", {}).get("attached"))
    until(one.is_raw)
    time.sleep(0.3)
    one.type(b"\x10x")
    one.expect(b"020   x")
    one.type(b"\x10\x11")
    assert one.end() == 0
    assert stage.sessions()["c"]["attached"] == 0
    again = terminal("attach", "c", "-i")
    until(again.is_raw)
    again.type(b"yz")
    again.expect(b"y   z")
    stage.call("signal", id="c", signal=9)
    assert again.end() == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_when_a_signal_ends_the_client(
    stage: Stage, terminal: Callable[..., Terminal], number: int
) -> None:
    """Without sig-proxy the client dies by the signal, with its terminal in order."""
    one = terminal("run", "-n", "-i", "-t", "c", "echo ready; sleep 60")
    one.expect(b"ready\r\n")
    until(one.is_raw)
    one.process.send_signal(number)
    assert one.end() == -number


def test_the_terminal_is_restored_when_the_monitor_is_killed(stage: Stage, terminal: Callable[..., Terminal]) -> None:
    """The client says what happened; the next monitor has the process, its terminal and its output."""
    one = terminal("run", "-i", "-t", "c", "echo ready; read line; echo got $line; sleep 60")
    one.expect(b"ready\r\n")
    until(one.is_raw)
    stage.kill_monitor()
    assert one.end() == 125
    one.expect(b"the monitor ended")
    again = terminal("attach", "c", "-i")
    until(again.is_raw)
    again.type(b"more\r")
    again.expect(b"got more\r\n")


def test_a_stopped_client_gives_the_terminal_back_and_takes_it_again(
    stage: Stage, terminal: Callable[..., Terminal]
) -> None:
    """SIGTSTP: cooked mode while it is stopped; SIGCONT: raw again, and the size is sent anew."""
    one = terminal("run", "-i", "-t", "c", 'trap "stty size" WINCH; echo ready; while :; do sleep 0.05; done')
    one.expect(b"ready\r\n")
    until(one.is_raw)
    one.process.send_signal(signal.SIGTSTP)
    until(lambda: not one.is_raw())
    until(lambda: open(f"/proc/{one.process.pid}/stat").read().rpartition(")")[2].split()[0] == "T")
    one.resize(20, 30)
    one.process.send_signal(signal.SIGCONT)
    one.expect(b"20 30\r\n")
    assert one.is_raw()


def test_a_terminal_without_a_client_terminal(stage: Stage) -> None:
    """-t from a pipe: the process has a terminal, the client's stdout gets its bytes."""
    done = stage.client("run", "-t", "c", "tty; exit 3")
    assert done.stdout.startswith("/dev/pts/")
    assert done.returncode == 3


# ---- the disk


@requires(root=True, tools=("mount",))
def test_a_full_disk_holds_nothing_up_and_the_gap_is_told(stage: Stage) -> None:
    """The process and its client go on; the log has whole lines, and says how many bytes are missing where."""
    directory = f"{stage.paths.container('c')}/log"
    os.makedirs(directory)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", directory], check=True)
    try:
        wait = f"touch {stage.base}/full; while [ ! -e {stage.base}/room ]; do sleep 0.05; done"
        one = stage.popen("run", "c", f"seq -f 'early %.0f' 0 3000; {wait}; echo late")
        until(lambda: os.path.exists(f"{stage.base}/full"))
        until(lambda: "No space left" in stage.log_text())
        subprocess.run(["mount", "-o", "remount,size=1m", directory], check=True)
        open(f"{stage.base}/room", "w").close()
        out, _ = one.communicate(timeout=30)
        assert out == b"".join(b"early %d\n" % number for number in range(3001)) + b"late\n"
        assert stage.output("c").endswith(b"late\n")
        (said,) = stage.output("c", "stderr").splitlines()
        assert said.startswith(b"pyrun: ")
        missing = int(said.split()[1])
        assert len(out) == len(stage.output("c")) + missing
    finally:
        subprocess.run(["umount", directory], check=True)
