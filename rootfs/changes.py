# SPDX-License-Identifier: Apache-2.0
"""`--change` of import and commit: Dockerfile instructions that only alter an image's config."""

from __future__ import annotations

import json

from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Config = dict[str, Any]

SHELL = ["/bin/sh", "-c"]


def apply(config: Config, changes: Iterable[str]) -> Config:
    """`config` (docker's field names) with each instruction applied in order. Raises UsageError."""
    result = dict(config)
    for change in changes:
        name, _, rest = change.strip().partition(" ")
        action = _ACTIONS.get(name.upper())
        if action is None:
            known = ", ".join(sorted(_ACTIONS))
            raise UsageError(
                f"invalid change '{change}'", f"'{name}' cannot be used here", hint=f"possible are {known}"
            )
        if not rest.strip():
            raise UsageError(f"invalid change '{change}'", f"{name.upper()} needs an argument")
        action(result, rest.strip())
    return result


def words(text: str) -> list[str]:
    """`text` split at blanks outside of quotes; quotes and backslashes are taken away, as in a Dockerfile."""
    found: list[str] = []
    word, quote, started, escaped = "", "", False, False
    for char in text:
        if escaped:
            word, escaped = word + char, False
        elif char == "\\" and quote != "'":
            escaped, started = True, True
        elif quote:
            if char == quote:
                quote = ""
            else:
                word += char
        elif char in "\"'":
            quote, started = char, True
        elif char in " \t":
            if started:
                found.append(word)
            word, started = "", False
        else:
            word, started = word + char, True
    if quote or escaped:
        raise UsageError(
            f"invalid change value '{text}'", "a quote is not closed" if quote else "it ends in a backslash"
        )
    return [*found, word] if started else found


def _exec_form(text: str) -> list[str] | None:
    """["a", "b"] as JSON, or None for the shell form."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _command(key: str) -> Callable[[Config, str], None]:
    def change(config: Config, text: str) -> None:
        listed = _exec_form(text)
        config[key] = listed if listed is not None else [*(config.get("Shell") or SHELL), text]

    return change


def _pairs(text: str, what: str) -> list[tuple[str, str]]:
    """A=1 B="two words", or the old form with one pair and a blank: A two words."""
    first, blank, rest = text.partition(" ")
    if "=" not in first and blank:
        return [(first, rest.strip())]
    found = []
    for word in words(text):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"invalid {what} '{word}'", "write NAME=VALUE")
        found.append((name, value))
    return found


def _env(config: Config, text: str) -> None:
    env = {item.partition("=")[0]: item for item in config.get("Env") or []}
    env.update({name: f"{name}={value}" for name, value in _pairs(text, "ENV")})
    config["Env"] = list(env.values())


def _label(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text, "LABEL"))}


def _expose(config: Config, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in words(text):
        port, slash, protocol = word.partition("/")
        first, dash, last = port.partition("-")
        numbers = [first, last] if dash else [first]
        if not all(n.isascii() and n.isdigit() and 0 < int(n) < 65536 for n in numbers) or (slash and not protocol):
            raise UsageError(
                f"invalid EXPOSE '{word}'", "write a port from 1 to 65535, with /udp or /sctp if it is not TCP"
            )
        if (protocol or "tcp").lower() not in ("tcp", "udp", "sctp"):
            raise UsageError(f"invalid EXPOSE '{word}'", f"unknown protocol '{protocol}'")
        for number in range(int(numbers[0]), int(numbers[-1]) + 1):
            ports[f"{number}/{(protocol or 'tcp').lower()}"] = {}
    config["ExposedPorts"] = ports


def _volume(config: Config, text: str) -> None:
    listed = _exec_form(text)
    paths = listed if listed is not None else words(text)
    if not paths or not all(path.startswith("/") for path in paths):
        raise UsageError(f"invalid VOLUME '{text}'", "write absolute paths")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _workdir(config: Config, text: str) -> None:
    path = " ".join(words(text))
    if not path.startswith("/"):
        path = f"{(config.get('WorkingDir') or '/').rstrip('/')}/{path}"
    config["WorkingDir"] = path


def _set(key: str) -> Callable[[Config, str], None]:
    def change(config: Config, text: str) -> None:
        config[key] = " ".join(words(text))

    return change


def _shell(config: Config, text: str) -> None:
    listed = _exec_form(text)
    if not listed:
        raise UsageError(f"invalid SHELL '{text}'", 'write it as a JSON array: ["/bin/sh", "-c"]')
    config["Shell"] = listed


def _onbuild(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or []), text]


_ACTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _set("StopSignal"),
    "USER": _set("User"),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
