# SPDX-License-Identifier: Apache-2.0
"""The thin client, the monitor's start and end, and its workers, with real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import prctl
import pytest

import monitor_double
from monitor_stage import Stage, gone, until
from pyrun.runtime import __version__
from pyrun.runtime.errors import NotFound, PyrunError
from pyrun.runtime.monitor import client, protocol, sockets

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


# ---- the start of a monitor


def test_the_first_client_starts_the_monitor_and_later_ones_find_it(stage: Stage) -> None:
    """Output, errors and the exit code are the command's own; two clients meet one monitor."""
    first = stage.client("say", "out", "err")
    pid = stage.monitor_pid()
    second = stage.client("say", "out", "err")
    for done in (first, second):
        assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)
    assert stage.monitor_pid() == pid
    assert Path(f"/proc/{pid}/comm").read_text() == "pyrun-monitor\n"


def test_clients_that_race_start_one_monitor(stage: Stage) -> None:
    """Twelve first clients at once: all are served, by one process, which recovered once."""
    clients = [stage.popen("say", "out", "") for _ in range(12)]
    assert [one.wait(60) for one in clients] == [3] * 12
    for one in clients:
        one.communicate()
    assert len(stage.asked("recover")) == 1
    assert len(stage.keeper_pids()) == 1


def test_a_socket_left_by_a_killed_monitor_does_not_matter(stage: Stage) -> None:
    """The file is there, nobody listens: the next client starts a monitor in its place."""
    stage.start_monitor()
    killed = stage.kill_monitor()
    assert os.path.exists(stage.paths.monitor_socket)
    assert stage.client("say", "", "").returncode == 3
    assert stage.monitor_pid() != killed


def test_an_idle_monitor_ends_and_takes_its_keeper_along(stage: Stage) -> None:
    """After the configured time with nothing to do there is neither process nor socket."""
    stage.environ["PYRUN_MONITOR_IDLE_S"] = "0.3"
    pid = stage.start_monitor()
    until(lambda: gone(pid))
    until(lambda: not stage.keeper_pids())
    assert not os.path.exists(stage.paths.monitor_socket)
    with pytest.raises(NotFound):
        stage.call("ping")


def test_no_client_is_lost_to_an_ending_monitor(stage: Stage) -> None:
    """A monitor that ends as soon as it may, and clients that keep coming: each gets its answer."""
    stage.environ["PYRUN_MONITOR_IDLE_S"] = "0.02"
    for number in range(40):
        done = stage.client("say", str(number), "")
        assert (done.stdout, done.returncode) == (f"{number}\n", 3), done.stderr
        time.sleep(number % 7 / 100)


def test_a_monitor_that_cannot_start_says_why(stage: Stage) -> None:
    """The client's error has the monitor's last words and names its log."""
    os.mkdir(stage.paths.run, 0o700)
    os.mkdir(f"{stage.paths.run}/monitor.pid")
    done = stage.client("say", "", "")
    assert done.returncode == 125
    assert "start the monitor" in done.stderr
    assert "monitor.pid" in done.stderr


def test_a_very_long_run_root_works(stage: Stage) -> None:
    """Longer than the 107 bytes that a socket's address has room for."""
    stage.paths = stage.paths.replace(run=f"{stage.base}/{'x' * 120}")
    assert stage.client("say", "out", "").stdout == "out\n"


def test_the_monitor_keeps_nothing_of_who_started_it(stage: Stage) -> None:
    """Its directory, descriptors, session, signals and environment are its own."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    environ = {**stage.environ, "SECRET": "s3cret", "LD_LIBRARY_PATH": "/nowhere"}
    nohup = stage.client("say", "", "", env=environ, cwd=stage.base, close_fds=False, preexec_fn=_ignore_term)
    assert nohup.returncode == 3
    os.close(writer)
    pid = stage.monitor_pid()
    assert os.read(reader, 1) == b"", "the pipe's end of file: nobody else holds it"
    os.close(reader)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) != os.getsid(0)
    assert b"SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert not int(status["SigIgn"], 16) & 1 << signal.SIGTERM - 1
    assert int(status["SigBlk"], 16) == 0


def test_a_monitor_imports_from_where_its_client_does(stage: Stage) -> None:
    """A client started with -S, with a path of its own: no site-packages get in front of that."""
    checkout = Path(monitor_double.__file__).resolve().parent.parent
    os.mkdir(f"{stage.base}/pyrun")
    for folder in ("runtime", "cgroups", "netns", "rootfs"):
        os.symlink(checkout / folder, f"{stage.base}/pyrun/{folder}")
    libraries = str(Path(prctl.__file__).parent)
    code = (
        f"import sys; sys.path += [{stage.base!r}, {str(checkout / 'tests')!r}, {libraries!r}, 'relative', '']; "
        "import monitor_double; sys.exit(monitor_double.client_main(sys.argv[1:]))"
    )
    command = [sys.executable, "-IS", "-c", code, stage.paths.data, stage.paths.run, "path"]
    done = subprocess.run(command, env=stage.environ, capture_output=True, text=True)
    seen = json.loads(done.stdout)
    assert seen[-3:] == [stage.base, str(checkout / "tests"), libraries]
    assert not [entry for entry in seen[:-1] if entry.endswith("-packages")]


def _ignore_term() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# ---- a worker is as the client


def test_a_worker_has_the_clients_context(stage: Stage) -> None:
    """Directory, umask, environment with bytes that are not UTF-8, stdio; and no descriptor of the monitor's."""
    environ = {os.fsencode(name): os.fsencode(value) for name, value in stage.environ.items()}
    environ[b"ODD"] = b"a\xff=b\nc"
    done = subprocess.run(
        ["sh", "-c", 'umask 027; cd /usr && exec "$@"', "sh", *stage.command("context")],
        env=environ, capture_output=True, check=True,
    )  # fmt: skip
    seen = json.loads(done.stdout)
    assert seen["cwd"] == "/usr"
    assert seen["umask"] == 0o027
    assert os.fsencode(seen["env"]["ODD"]) == b"a\xff=b\nc"
    assert seen["env"].keys() >= stage.environ.keys()
    # 0, 1, 2, the link, the log, the sealed pyrun-init, and the directory listed
    assert len(seen["fds"]) <= 7, seen["fds"]


def test_a_client_with_closed_stdio_works(stage: Stage) -> None:
    """stdin, stdout and stderr closed by the caller: the exit code still comes."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *stage.command("say", "a", "b")], env=stage.environ
    )
    assert done.returncode == 3


def test_a_directory_that_was_removed_is_no_obstacle(stage: Stage) -> None:
    """The client's working directory need not have a name any more."""
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *stage.command("say", "a", "b")], env=stage.environ, cwd=stage.base
    )
    assert done.returncode == 3


def test_stdin_and_stdout_of_a_plain_command_are_the_clients(stage: Stage) -> None:
    """A megabyte through a worker's fds, without the monitor in between."""
    data = os.urandom(1 << 20)
    done = stage.client("cat", input=data, text=False)
    assert done.stdout == data


def test_signals_reach_the_worker_and_its_cleanups_run(stage: Stage) -> None:
    """^C in the client is SIGINT in the worker; the exit code is 128 + 2."""
    one = stage.popen("sleep", "int")
    assert one.stdout is not None
    assert one.stdout.readline() == b"sleeping\n"
    one.send_signal(signal.SIGINT)
    assert one.wait(20) == 130
    one.communicate()
    assert stage.asked("interrupted") == [{"what": "interrupted", "note": "int", "code": 130}]


def test_a_killed_client_ends_its_worker(stage: Stage) -> None:
    """kill -9 of the client: the worker gets SIGTERM and cleans up."""
    one = stage.popen("sleep", "orphan")
    assert one.stdout is not None
    one.stdout.readline()
    one.kill()
    one.communicate()
    assert until(lambda: stage.asked("interrupted"))[0]["code"] == 143


def test_a_killed_monitor_ends_its_workers(stage: Stage) -> None:
    """kill -9 of the monitor: the worker gets SIGTERM and cleans up; the client says what happened."""
    one = stage.popen("sleep", "orphan")
    assert one.stdout is not None
    one.stdout.readline()
    stage.kill_monitor()
    assert one.wait(20) == 125
    assert b"the monitor ended" in one.communicate()[1]
    assert until(lambda: stage.asked("interrupted"))[0]["code"] == 143


def test_a_worker_killed_by_a_signal_is_followed_by_recovery(stage: Stage) -> None:
    """SIGKILL of a worker: the client gets 137, recover() runs again, and the monitor serves on."""
    pid = stage.start_monitor()
    until(lambda: len(stage.asked("recover")) == 1)
    assert stage.client("die").returncode == 137
    until(lambda: len(stage.asked("recover")) == 2)
    assert stage.client("say", "", "").returncode == 3
    assert stage.monitor_pid() == pid


def test_a_bug_in_a_command_is_in_the_log(stage: Stage) -> None:
    """An exception that no handler renders: exit code 125 and a traceback in monitor.log."""
    assert stage.client("bug").returncode == 125
    assert "a bug in a command" in stage.log_text()


def test_a_client_that_is_stopped_and_closed_pipes_end_by_sigpipe(stage: Stage) -> None:
    """`run … | head -1`: the client ends as any filter does, and the container goes on."""
    script = 'trap "" PIPE; i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done; sleep 60'
    one = stage.popen("run", "piped", script)
    assert one.stdout is not None
    assert one.stdout.readline() == b"line 0\n"
    one.stdout.close()
    assert one.wait(20) == -signal.SIGPIPE
    assert stage.sessions()["piped"]["state"] == "running"
    until(lambda: stage.output("piped").endswith(b"line 19999\n"))


# ---- calls


def test_calls_answer_with_values_and_errors(stage: Stage) -> None:
    """A value, an error of its class with hint, a bug by its name, a worker that died."""
    stage.start_monitor()
    assert stage.call("echo", a=[1, "ü"]) == {"a": [1, "ü"]}
    with pytest.raises(NotFound) as found:
        stage.call("missing")
    assert (found.value.what, found.value.why, found.value.hint) == ("look for it", "there is none", "make one")
    with pytest.raises(PyrunError, match="RuntimeError: a bug"):
        stage.call("bug")
    with pytest.raises(PyrunError, match="137"):
        stage.call("die")
    with pytest.raises(NotFound):
        stage.call("wait", id="nothing")
    with pytest.raises(PyrunError, match="KeyError"):
        stage.call("wait")


def test_fds_go_with_a_call(stage: Stage) -> None:
    """The worker reads from the caller's pipe."""
    stage.start_monitor()
    reader, writer = os.pipe()
    os.write(writer, b"through")
    assert client.request(stage.paths, {"call": "read-fd"}, [reader]) == "through"
    os.close(reader)
    os.close(writer)


def test_a_timer_runs_a_call_later_unless_it_is_cancelled(stage: Stage) -> None:
    """One of two timers is cancelled; the other's call is made once."""
    stage.start_monitor()
    stage.call("timer", key="a", after_s=30, run="echo", args={"n": 1})
    stage.call("timer", key="a", after_s=0.3, run="echo", args={"n": 2})
    stage.call("timer", key="b", after_s=30, run="echo", args={"n": 3})
    assert stage.call("cancel-timer", key="b") == {"cancelled": True}
    assert stage.call("cancel-timer", key="b") == {"cancelled": False}
    until(lambda: stage.asked("call"))
    time.sleep(0.3)
    assert [one["args"] for one in stage.asked("call")] == [{"n": 2}]


def request(kind: bytes, body: bytes, data_root: str = "/nowhere", version: str = __version__) -> bytes:
    return protocol.frame(protocol.REQUEST, protocol.pack_request(kind, version, data_root, body))


def test_another_data_root_is_refused(stage: Stage) -> None:
    """A monitor serves one pair of roots; what was meant for another store must not happen to this one."""
    stage.start_monitor()
    stage.paths = stage.paths.replace(data=f"{stage.base}/other")
    done = stage.client("say", "a", "b")
    assert done.returncode == 125
    assert f"use data root {stage.base}/other" in done.stderr
    stage.paths = stage.paths.replace(data=f"{stage.base}/data")


def test_another_version_takes_over_when_nothing_is_under_way(stage: Stage) -> None:
    """After an upgrade: the old monitor ends without an answer, the next one has the containers."""
    pid = stage.start_monitor()
    stage.client("run", "-d", "c", "while [ ! -e go ]; do sleep 0.05; done; exit 5", cwd=stage.base)
    waiting = stage.popen("wait", "c")
    until(lambda: len(stage.sessions()) == 1)
    time.sleep(0.2)
    ping = request(b"J", b'{"call":"ping"}', stage.paths.data, "99.0")
    assert ask(stage, ping).endswith(b'{"value":{"pid":%d}}' % pid), "somebody waits: served by the old one"
    waiting.kill()
    waiting.communicate()
    until(lambda: ask(stage, ping) == b"")
    until(lambda: gone(pid))
    assert stage.start_monitor() != pid
    assert set(stage.sessions()) == {"c"}


def ask(stage: Stage, sent: bytes) -> bytes:
    """What the monitor answers to some bytes, until it closes the connection."""
    sock = sockets.connect(stage.paths.monitor_socket)
    sock.settimeout(10)
    sock.sendall(sent)
    received = b""
    while data := sock.recv(65536):
        received += data
    sock.close()
    return received


# ---- what must not harm it


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff\x01",
        protocol.frame(protocol.STDIN, b"x"),
        protocol.frame(protocol.SIGNAL, b""),
        protocol.frame(99, b"x"),
        protocol.frame(protocol.REQUEST, b""),
        request(b"J", b"not json"),
        request(b"J", b"[1]"),
        request(b"J", b"[" * 100_000),
        request(b"J", b'{"call":"wait","id":["x"]}'),
        request(b"J", b'{"call":"adopt"}'),
        request(b"C", b"\0\0\0\0\xff\0\0\0a"),
        request(b"C", protocol.pack_command([b"say"], [], 0o22)),  # and no descriptors
        request(b"J", b'{"call":"ping"}') * 2,
        protocol.frame(protocol.LINK, b'{"call":"result"}'),
    ],
)
def test_nonsense_ends_the_connection_and_nothing_else(stage: Stage, sent: bytes) -> None:
    """Malformed, oversized, unexpected frames: that connection is closed, the monitor serves the next."""
    pid = stage.start_monitor()
    ask(stage, sent)
    assert stage.call("ping") == {"pid": pid}


def test_unwanted_descriptors_are_closed(stage: Stage) -> None:
    """Fds sent with frames that take none, and more of them than allowed, do not stay open in the monitor."""
    pid = stage.start_monitor()
    before = len(os.listdir(f"/proc/{pid}/fd"))
    reader, writer = os.pipe()
    for frame in (request(b"J", b'{"call":"ping"}'), protocol.frame(protocol.STDIN, b"x"), b"\1"):
        for count in (3, 250):
            sock = sockets.connect(stage.paths.monitor_socket)
            sockets.send(sock, frame, [reader] * count)
            sock.close()
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) == before)
    os.close(reader)
    os.close(writer)


def test_another_user_is_not_served(stage: Stage) -> None:
    """Even with the directory open to all: SO_PEERCRED decides."""
    stage.start_monitor()
    os.chmod(stage.base, 0o755)
    os.chmod(stage.paths.run, 0o755)
    os.chmod(stage.paths.monitor_socket, 0o777)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(stage.paths.monitor_socket)
            sock.sendall(request(b"J", b'{"call":"ping"}', stage.paths.data))
            code = 0 if sock.recv(100) == b"" else 2
        except ConnectionError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stage.call("ping")


def test_a_run_root_of_another_user_is_refused(stage: Stage) -> None:
    """Nothing is sent to a socket that somebody else may have put there."""
    os.mkdir(stage.paths.run, 0o700)
    os.chown(stage.paths.run, 65534, 65534)
    done = stage.client("say", "a", "b")
    assert done.returncode == 125
    assert "belongs to uid 65534" in done.stderr


def test_a_hundred_clients_at_once(stage: Stage) -> None:
    """A burst of connections, each with a worker, is served without refusals."""
    stage.start_monitor()
    results: list[object] = []

    def one(number: int) -> None:
        results.append(stage.call("echo", number=number)["number"])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, map(str, results))) == list(range(100))
