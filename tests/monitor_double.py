# SPDX-License-Identifier: Apache-2.0
"""A whole monitor without an engine: Handlers that start real processes on FIFOs, pipes and terminals.

    python monitor_double.py <data root> <run root> <command> …     a thin client, as the `pyrun` command is one

The monitor that the client starts imports this module too (spawn.ENTRY) and serves a Double.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pty
import signal
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

from pyrun.runtime.errors import NotFound
from pyrun.runtime.monitor import client, server, spawn
from pyrun.runtime.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.runtime.monitor.handlers import Relay
    from pyrun.runtime.monitor.loop import Loop
    from pyrun.runtime.monitor.worker import WorkerLink

CLONE_PARENT = 0x00008000
SYS_CLONE = {"x86_64": 56, "aarch64": 220}


def fork_sibling() -> int:
    """fork(2), but the child is our parent's: as pyrun-init's clone3(CLONE_PARENT)."""
    libc = ctypes.CDLL(None, use_errno=True)
    pid = libc.syscall(SYS_CLONE[os.uname().machine], CLONE_PARENT, 0, 0, 0, 0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return int(pid)


class Process:
    """/bin/sh -c `script`, held before its exec until go(). Its fds are as the engine makes them."""

    def __init__(self, paths: Paths, name: str, script: str, *, tty: bool, fifo: bool, stdin: bool) -> None:
        self.fds: dict[str, int] = {}
        ends: list[int] = []
        if tty:
            master, slave = pty.openpty()
            self.fds["tty"], ends = master, [slave, slave, slave]
        else:
            run = paths.running(name)
            os.makedirs(run, exist_ok=True)
            theirs, ours = os.pipe() if stdin else (os.open("/dev/null", os.O_RDONLY), -1)
            ends.append(theirs)
            if ours >= 0:
                self.fds["stdin"] = ours
            for stream in ("stdout", "stderr"):
                if fifo:
                    path = f"{run}/{stream}"
                    if not os.path.exists(path):
                        os.mkfifo(path, 0o600)
                    ends.append(os.open(path, os.O_RDWR))  # first: a FIFO without a writer reads as ended
                    self.fds[stream] = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                else:
                    reader, writer = os.pipe()
                    ends.append(writer)
                    self.fds[stream] = reader
        gate, self._gate = os.pipe()
        self.pid = fork_sibling()
        if self.pid == 0:
            self._exec(script, ends, gate, tty)
        os.close(gate)
        for end in set(ends):
            os.close(end)
        self.fds["pidfd"] = os.pidfd_open(self.pid)

    def _exec(self, script: str, ends: list[int], gate: int, tty: bool) -> None:
        try:
            os.close(self._gate)
            if not os.read(gate, 1):
                os._exit(125)
            os.setsid()
            for target, end in enumerate(ends):
                os.dup2(end, target)
            if tty:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.execv("/bin/sh", ["sh", "-c", script])
        finally:
            os._exit(127)

    def go(self) -> None:
        os.write(self._gate, b"!")


class Double:
    """See the module's text. What it is asked is written to <data>/asked, a JSON object a line."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        os.makedirs(paths.data, exist_ok=True)

    def _asked(self, what: str, **details: Any) -> None:
        with open(f"{self.paths.data}/asked", "a") as file:
            file.write(json.dumps({"what": what, **details}) + "\n")

    def run_command(self, argv: list[str], link: WorkerLink) -> int:
        command = getattr(self, "do_" + argv[0].replace("-", "_"))
        code: int = command(link, *argv[1:])
        return code

    def call(self, name: str, args: dict[str, Any], link: WorkerLink) -> Any:
        self._asked("call", name=name, args={key: value for key, value in args.items() if key != "fds"})
        if name == "missing":
            raise NotFound("look for it", "there is none", hint="make one")
        if name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "bug":
            raise RuntimeError("a bug")
        if name == "read-fd":
            return os.read(args["fds"][0], 100).decode()
        if name == "start":
            self.do_run(link, "-d", args["id"], "exit 0")
        if name == "run":
            self.do_run(link, "-d", args["id"], args["script"])
        return args

    def exited(self, session_id: str, returncode: int | None, link: WorkerLink) -> dict[str, Any]:
        self._asked("exited", id=session_id, returncode=returncode)
        if session_id.startswith("dying-finisher"):
            os.kill(os.getpid(), signal.SIGKILL)
        code = 255 if returncode is None else returncode if returncode >= 0 else 128 - returncode
        restarting = session_id.startswith("restart") and not os.path.exists(f"{self.paths.data}/restarted")
        if restarting:
            with open(f"{self.paths.data}/restarted", "w"):
                pass
        return {"code": code, "restart_after_s": 0.2 if restarting else None}

    def recover(self, link: WorkerLink) -> None:
        self._asked("recover", sessions=[one["id"] for one in link.request("sessions")])

    def begin(self, loop: Loop, later: Callable[[str, float, str, dict[str, Any]], None]) -> None:
        """Nothing to watch."""

    def make_relay(self, fd: int, target: Any, loop: Loop) -> Relay | None:
        return None

    # ---- commands

    def do_say(self, _link: WorkerLink, out: str, err: str) -> int:
        print(out)
        print(err, file=sys.stderr)
        return 3

    def do_context(self, _link: WorkerLink) -> int:
        mask = os.umask(0)
        fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
        print(json.dumps({"cwd": os.getcwd(), "umask": mask, "env": dict(os.environ), "fds": fds}))
        return 0

    def do_path(self, _link: WorkerLink) -> int:
        print(json.dumps(sys.path))
        return 0

    def do_cat(self, _link: WorkerLink) -> int:
        while data := os.read(0, 65536):
            os.write(1, data)
        return 0

    def do_die(self, _link: WorkerLink) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def do_bug(self, _link: WorkerLink) -> int:
        raise RuntimeError("a bug in a command")

    def do_sleep(self, _link: WorkerLink, note: str) -> int:
        """Sleeps until a signal; says which, as a clean-up would."""
        try:
            os.write(1, b"sleeping\n")
            time.sleep(60)
        except SystemExit as error:
            self._asked("interrupted", note=note, code=error.code)
            raise
        return 0

    def do_attach(self, link: WorkerLink, name: str, *flags: str) -> int:
        link.attach(name, stdin="-i" in flags, sig_proxy="--no-proxy" not in flags)
        return 0

    def do_wait(self, link: WorkerLink, name: str) -> int:
        print(link.wait(name))
        return 0

    def do_hold(self, link: WorkerLink, name: str, script: str) -> int:
        """A container with a listening socket on a free port, which is printed."""
        import socket

        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        link.hold_sockets(name, [listener.fileno()], [{"port": 1}])
        return self.do_run(link, "-d", name, script)

    def do_run(self, link: WorkerLink, *words: str) -> int:
        """[-d] [-i] [-t] [-e (exec: pipes, no log)] [-k (worker is killed before adoption)] [-f (fails after it)]
        [-s (says started, then goes on for a while)] [-l (small log files)] name script"""
        flags, (name, script) = words[:-2], words[-2:]
        tty, stdin, is_exec = "-t" in flags, "-i" in flags, "-e" in flags
        process = Process(self.paths, name, script, tty=tty, fifo=not is_exec, stdin=stdin)
        if "-k" in flags:
            os.kill(os.getpid(), signal.SIGKILL)
        log = {"dir": f"{self.paths.container(name)}/log", **({"max_size_bytes": 20_000} if "-l" in flags else {})}
        attach = None
        if "-d" not in flags:
            attach = {"stdin": stdin, "stdout": True, "stderr": True, "sig_proxy": "-n" not in flags}
        spec = {
            "id": name,
            "kind": "exec" if is_exec else "container",
            "tty": tty,
            "log": None if is_exec else log,
            "stdin": "none" if not stdin else "open" if "-d" in flags else "once",
            "attach": attach,
        }
        link.adopt(spec, process.fds)
        if "-f" in flags:
            os.kill(process.pid, signal.SIGKILL)
            print("the start failed", file=sys.stderr)
            return 127
        process.go()
        if "-s" in flags:
            link.started(name)
            time.sleep(0.5)
        return 0


def main() -> None:
    """The monitor's entry."""
    paths, ready_fd = spawn.arguments(sys.argv)
    server.serve(paths, Double(paths), ready_fd)


def client_main(argv: list[str]) -> int:
    spawn.ENTRY = "monitor_double"
    try:
        return client.forward(argv[2:], Paths(argv[0], argv[1]))
    except Exception as error:
        print(f"client: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(client_main(sys.argv[1:]))
