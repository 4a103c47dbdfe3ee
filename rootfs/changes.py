# SPDX-License-Identifier: Apache-2.0
"""`--change` of import and commit: Dockerfile instructions that only alter an image's config."""

from __future__ import annotations

from pyrun.runtime.errors import UsageError

from .build import instructions
from .build import steps as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .build.expand import Lookup

    Config = dict[str, Any]

SHELL = ("/bin/sh", "-c")


def apply(config: Config, changes: Iterable[str]) -> Config:
    """A copy of `config` (docker's field names) with each instruction applied in order. Raises UsageError.

    Variables are those of the config's Env, as in a build.
    """
    result = dict(config)
    seen: set[type[s.Step]] = set()
    for change in changes:
        try:
            step = instructions.one(change)
            action = _ACTIONS.get(type(step))
            if action is None:
                raise step.at.error(f"{step.at.name} cannot be used here", f"possible are {POSSIBLE}")
            action(result, step, _environment(result).get)
        except UsageError as error:
            raise UsageError(f"invalid change '{change}'", error.why or error.what, hint=error.hint) from None
        seen.add(type(step))
        if isinstance(step, s.Entrypoint) and s.Cmd not in seen:
            result.pop("Cmd", None)  # it was for the old ENTRYPOINT
    return result


def _environment(config: Config) -> dict[str, str]:
    return dict(item.partition("=")[::2] for item in config.get("Env") or ())


def _command(key: str) -> Callable[[Config, Any, Lookup], None]:
    def change(config: Config, step: s.Cmd | s.Entrypoint, _: Lookup) -> None:
        config[key] = [*(config.get("Shell") or SHELL), *step.args] if step.shell else list(step.args)

    return change


def _set(key: str, field: str) -> Callable[[Config, Any, Lookup], None]:
    def change(config: Config, step: s.Step, lookup: Lookup) -> None:
        config[key] = getattr(instructions.expanded(step, lookup), field)

    return change


def _env(config: Config, step: s.Env, lookup: Lookup) -> None:
    values = _environment(config) | dict(instructions.expanded(step, lookup).pairs)
    config["Env"] = [f"{name}={value}" for name, value in values.items()]


def _label(config: Config, step: s.Label, lookup: Lookup) -> None:
    config["Labels"] = (config.get("Labels") or {}) | dict(instructions.expanded(step, lookup).pairs)


def _expose(config: Config, step: s.Expose, lookup: Lookup) -> None:
    ports: dict[str, Any] = {port: {} for port in instructions.exposed(step, lookup)}
    config["ExposedPorts"] = (config.get("ExposedPorts") or {}) | ports


def _volume(config: Config, step: s.Volume, lookup: Lookup) -> None:
    paths = instructions.expanded(step, lookup).paths
    for path in paths:
        if not path.startswith("/"):
            raise step.at.error(f"'{path}' is not absolute", "write absolute paths")
    config["Volumes"] = (config.get("Volumes") or {}) | {path: {} for path in paths}


def _workdir(config: Config, step: s.Workdir, lookup: Lookup) -> None:
    path = instructions.expanded(step, lookup).path
    if not path.startswith("/"):
        path = f"{(config.get('WorkingDir') or '/').rstrip('/')}/{path}"
    config["WorkingDir"] = path


def _shell(config: Config, step: s.Shell, _: Lookup) -> None:
    config["Shell"] = list(step.args)


def _onbuild(config: Config, step: s.Onbuild, _: Lookup) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or []), step.trigger]


def _healthcheck(config: Config, step: s.Healthcheck, _: Lookup) -> None:
    config["Healthcheck"] = step.config()


_ACTIONS: dict[type[s.Step], Callable[[Config, Any, Lookup], None]] = {
    s.Cmd: _command("Cmd"),
    s.Entrypoint: _command("Entrypoint"),
    s.Env: _env,
    s.Expose: _expose,
    s.Healthcheck: _healthcheck,
    s.Label: _label,
    s.Onbuild: _onbuild,
    s.Shell: _shell,
    s.StopSignal: _set("StopSignal", "signal"),
    s.User: _set("User", "user"),
    s.Volume: _volume,
    s.Workdir: _workdir,
}
POSSIBLE = ", ".join(kind.__name__.upper() for kind in _ACTIONS)
