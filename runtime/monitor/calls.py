# SPDX-License-Identifier: Apache-2.0
"""The calls that the monitor answers itself, from a client's request and from a worker's link alike.

A call gets the monitor, the caller (a Client, or the Task of a worker) and the arguments; it returns the value, or
DEFERRED and uses caller.answer() later. It raises PyrunError to refuse.
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import Conflict, NotFound, PyrunError
from pyrun.runtime.monitor import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from pyrun.runtime.monitor.client_side import Client
    from pyrun.runtime.monitor.server import Monitor
    from pyrun.runtime.monitor.session import Session
    from pyrun.runtime.monitor.task import Task

    Caller: TypeAlias = Client | Task
    Args: TypeAlias = dict[str, Any]

DEFERRED = object()
FINISHING = "finishing"


def _session(monitor: Monitor, args: Args, what: str) -> Session:
    session = monitor.sessions.get(str(args["id"]))
    if session is None:
        raise NotFound(f"{what} {args['id']}", "it is not running")
    return session


# ---- for everybody


def ping(_monitor: Monitor, _caller: Caller, _args: Args) -> Any:
    return {"pid": os.getpid()}


def list_sessions(monitor: Monitor, _caller: Caller, _args: Args) -> Any:
    return [
        {
            "id": one.id,
            "kind": one.kind,
            "tty": one.tty,
            "pid": one.pid,
            "attached": len(one.attached),
            "state": one.state,
        }
        for one in monitor.sessions.values()
    ]


def wait(monitor: Monitor, caller: Caller, args: Args) -> Any:
    _session(monitor, args, "wait for").on_over.append(lambda code: caller.answer({"code": code}))
    return DEFERRED


def resize(monitor: Monitor, _caller: Caller, args: Args) -> Any:
    _session(monitor, args, "resize").resize(int(args["rows"]), int(args["columns"]))


def signal(monitor: Monitor, _caller: Caller, args: Args) -> Any:
    _session(monitor, args, "signal").signal(int(args["signal"]))


def timer(monitor: Monitor, _caller: Caller, args: Args) -> Any:
    monitor.set_timer(str(args["key"]), float(args["after_s"]), str(args["run"]), dict(args.get("args") or {}))


def cancel_timer(monitor: Monitor, _caller: Caller, args: Args) -> Any:
    return {"cancelled": monitor.cancel_timer(str(args["key"]))}


def cancel_restart(monitor: Monitor, _caller: Caller, args: Args) -> Any:
    return {"cancelled": monitor.cancel_timer(f"restart {args['id']}")}


def stop_monitor(monitor: Monitor, _caller: Caller, _args: Args) -> Any:
    monitor.loop.after(0.01, monitor.loop.stop)  # the answer goes first


def attach(monitor: Monitor, caller: Caller, args: Args) -> Any:
    session = _session(monitor, args, "attach to")
    client = caller.client
    if client is None:
        raise PyrunError(f"attach to {session.id}", "this request has no client")
    direct = client is caller
    client.attach(session, args, ready=direct)
    return DEFERRED if direct else None


# ---- for workers


def adopt(monitor: Monitor, task: Task, args: Args) -> Any:
    """WorkerLink.adopt(). Waits while a session of that name is being finished (a restart follows at once)."""
    spec, names, fds = args["session"], list(args["names"]), task.take_fds()
    try:
        if len(names) != len(fds) or "pidfd" not in names or ("tty" in names) != bool(spec.get("tty")):
            raise PyrunError("adopt", f"{len(fds)} descriptors for {names}")
        present = monitor.sessions.get(str(spec["id"]))
        if present is not None and present.state != FINISHING:
            raise Conflict(f"adopt {spec['id']}", "it is running already")
    except BaseException:
        sockets.close_all(fds)
        raise

    def go_on(_code: int = 0) -> None:
        monitor.adopt(task, spec, dict(zip(names, fds, strict=True)))

    if present is None:
        go_on()
        return None

    def later(_code: int) -> None:
        try:
            go_on()
        except PyrunError as error:
            task.refuse(error)
        else:
            task.answer(None)

    present.on_over.append(later)
    return DEFERRED


def started(_monitor: Monitor, task: Task, args: Args) -> Any:
    client = task.client
    if client is not None and client.attachment is not None and client.attachment.session.id == args["id"]:
        client.attachment.ready()


def hold_sockets(monitor: Monitor, task: Task, args: Args) -> Any:
    task.holding.add(str(args["id"]))
    monitor.hold_sockets(str(args["id"]), task.take_fds(), list(args["targets"]))


def result(_monitor: Monitor, task: Task, args: Args) -> Any:
    task.value = args["value"]


def error(_monitor: Monitor, task: Task, args: Args) -> Any:
    task.error = args["error"]


BUILTIN: dict[str, Callable[[Monitor, Caller, Args], Any]] = {
    "ping": ping,
    "sessions": list_sessions,
    "wait": wait,
    "resize": resize,
    "signal": signal,
    "timer": timer,
    "cancel-timer": cancel_timer,
    "cancel-restart": cancel_restart,
    "stop-monitor": stop_monitor,
    "attach": attach,
}

SILENT = frozenset({result, error})  # what a worker says last: it does not wait for an answer

WORKERS: dict[str, Callable[[Monitor, Task, Args], Any]] = {
    "adopt": adopt,
    "started": started,
    "hold-sockets": hold_sockets,
    "result": result,
    "error": error,
}
