# SPDX-License-Identifier: Apache-2.0
"""The instructions that change only the image's config: docker's JSON fields, and a line of history.

As in docker: ENTRYPOINT drops the base image's CMD, USER and the like replace, EXPOSE, VOLUME, LABEL and ENV add.
"""

from __future__ import annotations

from pyrun.rootfs.build import platforms
from pyrun.rootfs.build import steps as s
from pyrun.rootfs.build.substitute import expanded, exposed, resolve_args

from .stage import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .graph import Graph
    from .stage import State


def _env(state: State, step: s.Env, _: Graph) -> None:
    pairs = expanded(step, state.lookup).pairs
    for name, value in pairs:
        state.set_env(name, value)
    state.commit("ENV " + " ".join(f"{name}={value}" for name, value in pairs))


def _arg(state: State, step: s.Arg, graph: Graph) -> None:
    inherited = {name: value for name, value in graph.globals.items() if value is not None}
    found = resolve_args(step, state.lookup, graph.build_args, inherited)
    shown = []
    own = {name for name, default in step.pairs if default is not None} | graph.build_args.keys()
    for name, value in found:
        state.set_arg(name, value)
        # docker says no value that comes from before the first FROM
        is_shown = value is not None and name in own and name not in platforms.PROXIES
        shown.append(f"{name}={value}" if is_shown else name)
    state.commit("ARG " + " ".join(shown))


def _label(state: State, step: s.Label, _: Graph) -> None:
    pairs = expanded(step, state.lookup).pairs
    state.config["Labels"] = {**(state.config.get("Labels") or {}), **dict(pairs)}
    state.commit("LABEL " + " ".join(f"{name}={value}" for name, value in pairs))


def _command(state: State, step: s.Cmd | s.Entrypoint) -> list[str]:
    return [*state.shell, *step.args] if step.shell else list(step.args)


def _cmd(state: State, step: s.Cmd, _: Graph) -> None:
    state.config["Cmd"] = _command(state, step)
    state.cmd_is_set = True
    state.commit("CMD " + quoted(state.config["Cmd"]))


def _entrypoint(state: State, step: s.Entrypoint, _: Graph) -> None:
    state.config["Entrypoint"] = _command(state, step)
    if not state.cmd_is_set:  # the base's CMD was for the base's ENTRYPOINT
        state.config.pop("Cmd", None)
    state.commit("ENTRYPOINT " + quoted(state.config["Entrypoint"]))


def _shell(state: State, step: s.Shell, _: Graph) -> None:
    state.config["Shell"] = list(step.args)
    state.commit(f"SHELL [{' '.join(step.args)}]")


def _expose(state: State, step: s.Expose, _: Graph) -> None:
    ports = exposed(step, state.lookup)
    state.config["ExposedPorts"] = {**(state.config.get("ExposedPorts") or {}), **{port: {} for port in ports}}
    state.commit(f"EXPOSE [{' '.join(ports)}]")


def _user(state: State, step: s.User, _: Graph) -> None:
    state.config["User"] = expanded(step, state.lookup).user
    state.commit(f"USER {state.config['User']}")


def _volume(state: State, step: s.Volume, _: Graph) -> None:
    paths = expanded(step, state.lookup).paths
    if not all(paths):
        raise step.at.error("VOLUME: a path is empty", "is a variable not set?")
    state.config["Volumes"] = {**(state.config.get("Volumes") or {}), **{path: {} for path in paths}}
    state.commit(f"VOLUME [{' '.join(paths)}]")


def _stop_signal(state: State, step: s.StopSignal, _: Graph) -> None:
    from pyrun.runtime.engine.signals import number
    from pyrun.runtime.errors import PyrunError

    signal = expanded(step, state.lookup).signal
    try:
        number(signal)
    except PyrunError as error:
        raise step.at.error(f"STOPSIGNAL {signal}: {error.why or error.what}", error.hint) from None
    state.config["StopSignal"] = signal
    state.commit(f"STOPSIGNAL {signal}")


def _healthcheck(state: State, step: s.Healthcheck, _: Graph) -> None:
    check: dict[str, Any] = {"Test": list(step.test)}
    if step.test != ("NONE",):
        times = {
            "Interval": step.interval_ns,
            "Timeout": step.timeout_ns,
            "StartPeriod": step.start_period_ns,
            "StartInterval": step.start_interval_ns,
            "Retries": step.retries,
        }
        check |= {name: value for name, value in times.items() if value}
    state.config["Healthcheck"] = check
    state.commit(step.at.original)


def _onbuild(state: State, step: s.Onbuild, _: Graph) -> None:
    state.config["OnBuild"] = [*(state.config.get("OnBuild") or []), step.trigger]  # docker's history has no ONBUILD


def _maintainer(state: State, step: s.Maintainer, _: Graph) -> None:
    state.document["author"] = step.name
    state.commit(f"MAINTAINER {step.name}")


ACTIONS: dict[type, Callable[[State, Any, Graph], None]] = {
    s.Arg: _arg,
    s.Cmd: _cmd,
    s.Entrypoint: _entrypoint,
    s.Env: _env,
    s.Expose: _expose,
    s.Healthcheck: _healthcheck,
    s.Label: _label,
    s.Maintainer: _maintainer,
    s.Onbuild: _onbuild,
    s.Shell: _shell,
    s.StopSignal: _stop_signal,
    s.User: _user,
    s.Volume: _volume,
}
