# SPDX-License-Identifier: Apache-2.0
"""The monitor: accepts clients, answers calls, forks workers, and owns the sessions. One process, one thread.

    listening socket ──> Client ──REQUEST──> Task (a forked worker) ──adopt──> Session ──> finisher Task ──> over

Nothing here waits: what takes time or may fail is done in a worker, whose death, however violent, is an event.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import time
import traceback
from collections import deque
from contextlib import suppress
from functools import partial

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.files import Lock
from pyrun.runtime.kernel.spawn import program_fd
from pyrun.runtime.monitor import sockets, worker
from pyrun.runtime.monitor.client_side import Client
from pyrun.runtime.monitor.fault import fault
from pyrun.runtime.monitor.inbox import Ledger
from pyrun.runtime.monitor.keeper import Keeper
from pyrun.runtime.monitor.loop import READ, Loop
from pyrun.runtime.monitor.session import Output, Session
from pyrun.runtime.monitor.task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pyrun.runtime.monitor.handlers import Handlers, Relay
    from pyrun.runtime.monitor.keeper import Kept
    from pyrun.runtime.monitor.loop import Timer
    from pyrun.runtime.paths import Paths

IDLE_S = 60.0
FINISHERS = 8  # at a time: each is a fork of a process with 30 MB
LOG_BYTES = 1 << 20  # monitor.log is emptied when it gets longer
LEDGER = ".ledger"  # the dot: it alone is no reason for the keeper to stay
UNKNOWN = 255  # what waiting clients get when nobody can know the exit code, as docker says it
P_ALL, WALL = os.P_ALL, 0x40000000  # __WALL, wait(2)


class Monitor:
    """Everything that the monitor knows. serve() makes the one there is."""

    def __init__(self, paths: Paths, handlers: Handlers, limits: dict[int, tuple[int, int]]) -> None:
        self.paths = paths
        self.handlers = handlers
        self.sessions: dict[str, Session] = {}
        self.tasks: dict[int, Task] = {}
        self.clients: set[Client] = set()
        self._limits = limits
        self._timers: dict[str, Timer] = {}
        self._sockets: dict[str, list[tuple[int, Any, Relay | None]]] = {}
        self._finishing: deque[Session] = deque()
        self._finishers = 0
        self._recovering: Task | None = None
        self._recover_again = False
        self._last_activity = time.monotonic()
        self._idle_s = float(os.environ.get("PYRUN_MONITOR_IDLE_S") or IDLE_S)
        self.loop = Loop(self._event_failed)
        self.keeper = Keeper(self.loop, paths.run, self._keep_everything, self.note)
        self.ledger = self._readopt()
        self._listener = sockets.listen(paths.monitor_socket)
        self.loop.watch(self._listener.fileno(), READ, self._accept)
        self.loop.on_signal(signal.SIGCHLD, self._reap)
        self.loop.on_signal(signal.SIGTERM, self.loop.stop)
        self._look_after_idleness()

    def note(self, text: str) -> None:
        """A line in <run>/monitor.log (our stderr), which is emptied when it has grown too long."""
        try:
            if os.fstat(2).st_size > LOG_BYTES:
                os.ftruncate(2, 0)
            os.write(2, f"{time.strftime('%F %T')} {text}\n".encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # a full disk, or no regular file: nothing more can be said anywhere

    def _event_failed(self, error: BaseException) -> None:
        self.note("".join(traceback.format_exception(error)).rstrip())

    # ---- clients and workers

    def _accept(self, _events: int) -> None:
        while (sock := sockets.accept(self._listener)) is not None:
            self._last_activity = time.monotonic()
            self.clients.add(Client(self, sock))

    def forget_client(self, client: Client) -> None:
        """The connection is closed."""
        self.clients.discard(client)
        self._last_activity = time.monotonic()

    def setup(self, name: str, *, keep: Sequence[int] = (), **how: Any) -> worker.Setup:
        """A Setup for a worker: `how` as for worker.Setup."""
        return worker.Setup(name, keep=[*keep, program_fd()], limits=self._limits, **how)

    def start(
        self, setup: worker.Setup, body: Callable[[worker.WorkerLink], int], on_end: Callable[[Task], object],
        client: Client | None = None,
    ) -> Task:  # fmt: skip
        """Forks a worker. Raises OSError when that is impossible."""
        task = Task(self, setup, body, on_end, client)
        self.tasks[task.pid] = task
        return task

    def _reap(self) -> None:
        """Meets every zombie child: workers, sessions, and what a killed worker had started and nobody adopted."""
        while True:
            try:
                found = os.waitid(P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL)
            except ChildProcessError:
                return
            if found is None:
                return
            session = next((one for one in self.sessions.values() if one.pid == found.si_pid), None)
            if session is not None and session.returncode is None and session.state == "running":
                session.process_ended()  # reaps it by its pidfd
                continue
            _, status = os.waitpid(found.si_pid, WALL)
            task = self.tasks.pop(found.si_pid, None)
            if task is not None:
                self._last_activity = time.monotonic()
                task.reaped(status)
                if task.killed:
                    self.note(f"worker {task.name!r} was ended by signal {task.code - 128}")
                if task.killed or task.code - 128 in worker.POLITE:  # interrupted, maybe between a step and its undo
                    self.recover()

    def recover(self) -> None:
        """Runs handlers.recover() in a worker; once more afterwards if it is running now."""
        if self._recovering is not None:
            self._recover_again = not self._recovering.killed
            return
        handlers = self.handlers
        body = worker.answering(handlers.recover)
        try:
            self._recovering = self.start(self.setup("recover"), body, self._recovered)
        except OSError as error:
            self.note(f"recover: {error}")

    def _recovered(self, task: Task) -> None:
        if task.error is not None:
            self.note(f"recover: {task.error.get('what')}: {task.error.get('why')}")
        if not task.killed:  # else _reap() comes here again, and must not find an endless loop
            self._recovering = None
            if self._recover_again:
                self._recover_again = False
                self.recover()
        else:
            self.loop.after(5.0, self._recover_once_more)

    def _recover_once_more(self) -> None:
        self._recovering = None
        self.recover()

    # ---- sessions

    def adopt(self, task: Task, spec: dict[str, Any], fds: dict[str, int]) -> None:
        """Takes over a process that a worker has started. Raises PyrunError, OSError; then the fds are closed."""
        try:
            session = Session(self, spec, fds)
        except BaseException:
            sockets.close_all(list(fds.values()))
            raise
        self.sessions[session.id] = session
        try:
            session.keep()
        except PyrunError:
            del self.sessions[session.id]
            sockets.close_all(list(fds.values()))
            raise
        task.adopted.add(session.id)
        if spec.get("attach") and task.client is not None and task.client.channel.open:
            task.client.attach(session, spec["attach"], ready=False)
        session.run()

    def exited(self, session: Session) -> None:
        """The process has ended and its output is logged: clean up behind a container in a finisher."""
        if session.kind == "container":
            self._finishing.append(session)
            self._finish_next()
        else:
            self._over(session, None)

    def _finish_next(self) -> None:
        while self._finishing and self._finishers < FINISHERS:
            session = self._finishing.popleft()
            name = f"finish {session.id[:12]}"
            try:
                self.start(self.setup(name), self._finisher(session), partial(self._finished, session))
                self._finishers += 1
            except OSError as error:  # no process to be had: later
                self.note(f"finish {session.id}: {error}")
                self._finishing.appendleft(session)
                self.loop.after(1.0, self._finish_next)
                return

    def _finisher(self, session: Session) -> worker.Body:
        handlers = self.handlers
        return worker.answering(lambda link: handlers.exited(session.id, session.returncode, link))

    def _finished(self, session: Session, task: Task) -> None:
        fault("finished")
        self._finishers -= 1
        if task.error is not None:
            self.note(f"{task.name}: {task.error.get('what')}: {task.error.get('why')}")
        self._over(session, task.value if isinstance(task.value, dict) else None)
        self._finish_next()

    def _over(self, session: Session, verdict: dict[str, Any] | None) -> None:
        returncode = session.returncode
        code = UNKNOWN if returncode is None else returncode if returncode >= 0 else 128 - returncode
        restart_after_s = None
        if verdict is not None:
            code = int(verdict.get("code", code))
            restart_after_s = verdict.get("restart_after_s")
        del self.sessions[session.id]
        self._last_activity = time.monotonic()
        self.keeper.drop(session.id)
        self.release_sockets(session.id)
        if restart_after_s is not None:
            self.set_timer(
                f"restart {session.id}", float(restart_after_s), "start", {"id": session.id, "restart": True}
            )
        session.over(code)

    # ---- timers

    def set_timer(self, key: str, after_s: float, call: str, args: dict[str, Any]) -> None:
        """handlers.call(call, args) in a worker, later; instead of the timer that has this key now."""
        self.cancel_timer(key)
        handlers = self.handlers

        def due() -> None:
            self._timers.pop(key, None)
            self.start(
                self.setup(key), worker.answering(lambda link: handlers.call(call, args, link)), self._timer_ended
            )

        self._timers[key] = self.loop.after(after_s, due)

    def cancel_timer(self, key: str) -> bool:
        """Whether there was one."""
        found = self._timers.pop(key, None)
        if found is not None:
            found.cancel()
        return found is not None

    def _timer_ended(self, task: Task) -> None:
        if task.error is not None:
            self.note(f"{task.name}: {task.error.get('what')}: {task.error.get('why')}")

    # ---- published ports

    def hold_sockets(self, session_id: str, fds: list[int], targets: list[Any], *, kept: bool = False) -> None:
        """Keeps sockets, and starts a relay for each target that wants one."""
        held = self._sockets.setdefault(session_id, [])
        if not kept:
            data = json.dumps({"sockets": session_id, "targets": targets}).encode()
            self.keeper.put(f"{session_id}/{len(held)}", data, fds)
        for fd, target in zip(fds, targets, strict=True):
            os.set_blocking(fd, False)
            held.append((fd, target, self.handlers.make_relay(fd, target, self.loop)))

    def release_sockets(self, session_id: str) -> None:
        """Closes what hold_sockets() was given for a session."""
        for number, (fd, _target, relay) in enumerate(self._sockets.pop(session_id, ())):
            if relay is not None:
                relay.close()
            self.loop.unwatch(fd)
            os.close(fd)
            self.keeper.drop(f"{session_id}/{number}")

    # ---- the keeper, and what an earlier monitor left with it

    def _readopt(self) -> Ledger:
        kept = {one.name: one for one in self.keeper.everything()}
        former = kept.pop(LEDGER, None)
        ledger = self.ledger = Ledger(former.fds if former is not None else ())
        if former is None:
            self.keeper.put(LEDGER, b"{}", ledger.fds)
        described = {name: json.loads(one.data) for name, one in kept.items()}
        ledger.reclaim([slot for data in described.values() for slot in data.get("slots", {}).values()])
        for name, data in described.items():
            if "session" in data:
                self._readopt_session(data, kept[name])
        self._finish_transfer(ledger)
        for name, data in described.items():
            if "sockets" in data and data["sockets"] in self.sessions:
                self.hold_sockets(data["sockets"], list(kept[name].fds), data["targets"], kept=True)
            elif "sockets" in data:
                sockets.close_all(kept[name].fds)
                self.keeper.drop(name)
        for session in self.sessions.values():
            session.run()
        return ledger

    def _readopt_session(self, data: dict[str, Any], kept: Kept) -> None:
        fds = dict(zip(data["names"], kept.fds, strict=True))
        try:
            session = Session(self, data["session"], fds, data["slots"])
        except (OSError, PyrunError) as error:  # its log directory is gone: then so is the container
            self.note(f"{kept.name}: cannot be adopted again: {error}")
            sockets.close_all(kept.fds)
            self.keeper.drop(kept.name)
            return
        self.sessions[session.id] = session

    def _finish_transfer(self, ledger: Ledger) -> None:
        unfinished = ledger.unfinished()
        if unfinished is None:
            return
        slot, inode, size, taken = unfinished
        for session in self.sessions.values():
            name = next((name for name, its in session.slots.items() if its == slot), None)
            if name is not None and session.log is not None:
                session.log.cut(inode, size)
                if taken:
                    session.record(Output(-1, name, slot), taken)
                    return
        ledger.cancel()

    def _keep_everything(self) -> None:
        self.keeper.put(LEDGER, b"{}", self.ledger.fds)
        for session in self.sessions.values():
            session.keep()
        for session_id, held in self._sockets.items():
            for number, (fd, target, _relay) in enumerate(held):
                data = json.dumps({"sockets": session_id, "targets": [target]}).encode()
                self.keeper.put(f"{session_id}/{number}", data, [fd])

    # ---- the end

    def retire(self, asking: Client) -> bool:
        """Ends this monitor, if it has nothing under way but running containers, for one of another version.

        The next one gets the containers from the keeper: so pyrun can be upgraded under them.
        """
        busy = self.tasks or self._timers or self._finishing or self.clients - {asking}
        if not busy:
            self.note("another version of pyrun takes over")
            self.loop.stop()
        return not busy

    def _look_after_idleness(self) -> None:
        busy = self.sessions or self.tasks or self.clients or self._timers
        left = self._idle_s - (time.monotonic() - self._last_activity)
        if not busy and left <= 0 and self._close_listener():
            self.keeper.drop(LEDGER)
            self.loop.stop()
            return
        self.loop.after(self._idle_s if busy or left <= 0 else left, self._look_after_idleness)

    def _close_listener(self) -> bool:
        """Whether the socket could be removed with no client on its way to it.

        Under the lock that starting a monitor takes. First nobody new can find the socket, then who had found it
        already is served. One that connects in the moment between the last look and the close gets a reset before
        any ACCEPTED, and tries again (client.py).
        """
        try:
            with Lock(f"{self.paths.run}/monitor.lock", blocking=False):
                os.unlink(self.paths.monitor_socket)
                self._accept(0)
                if not self.clients:
                    self.loop.unwatch(self._listener.fileno())
                    self._listener.close()
                    return True
                former, self._listener = self._listener, sockets.listen(self.paths.monitor_socket)
                self.loop.unwatch(former.fileno())
                former.close()
                self.loop.watch(self._listener.fileno(), READ, self._accept)
        except BlockingIOError:
            return False
        except FileNotFoundError:  # somebody removed the socket or the run root: nobody can find us any more
            return True
        return False


def serve(paths: Paths, handlers: Handlers, ready_fd: int = -1) -> None:
    """Is the monitor of these roots until there is nothing more to do. Returns at once if there is one already.

    Args:
        ready_fd: gets one byte as soon as clients can connect, and is closed; -1 for none.

    The calling process must have no threads, and should be as spawn.py makes it: a session of its own, stdin and stdout
    on /dev/null, stderr on monitor.log.
    """
    import prctl

    lifetime = _sole_monitor(paths)
    if lifetime < 0:
        return
    limits = _raise_limits()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prctl.set_name("pyrun-monitor")
    prctl.set_proctitle(f"pyrun: monitor {paths.run}")
    prctl.set_child_subreaper(1)  # what a worker's children leave behind is reaped here
    monitor = Monitor(paths, handlers, limits)
    handlers.begin(monitor.loop, monitor.set_timer)
    gc.collect()
    gc.freeze()  # what is there now is not touched by a collection, so that forks go on sharing it
    if ready_fd >= 0:
        with suppress(BrokenPipeError):  # the client that wanted a monitor is gone; others will use it
            os.write(ready_fd, b"+")
        os.close(ready_fd)
    monitor.recover()
    monitor.loop.run()
    monitor.keeper.close()


def _sole_monitor(paths: Paths) -> int:
    """An fd whose flock(2) makes this the only monitor of the run root; -1 if another one has it."""
    import fcntl

    fd = os.open(f"{paths.run}/monitor.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for _ in range(200):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # or a worker of a killed monitor that has not closed its copy yet
            time.sleep(0.01)
            continue
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return fd
    os.close(fd)
    return -1


def _raise_limits() -> dict[int, tuple[int, int]]:
    """Lets this process have as many and as long files as it may; returns the limits that its workers go back to."""
    import resource

    limits = {what: resource.getrlimit(what) for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)}
    for what, (_soft, hard) in limits.items():
        resource.setrlimit(what, (hard, hard))
    return limits
