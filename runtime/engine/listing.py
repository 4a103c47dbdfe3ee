# SPDX-License-Identifier: Apache-2.0
"""What ps shows: one row per container, in docker's words, and the filters that choose rows."""

from __future__ import annotations

import os
import time

from pyrun.runtime.engine import humanize
from pyrun.runtime.engine.containers import DEAD, EXITED, NEVER, PAUSED, REMOVING, RESTARTING, RUNNING, STATUSES
from pyrun.runtime.engine.templates import Lazy
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pyrun.runtime.engine.containers import Container, State
    from pyrun.runtime.paths import Paths

COMMAND_WIDTH, MOUNT_WIDTH = 20, 15
COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "State": "STATE",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
}
DEFAULT = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


def row(
    paths: Paths, container: Container, state: State, *, shorten: bool = True, size: bool = False
) -> dict[str, Any]:
    """The fields of one container for a table or a template."""
    labels = dict(container.labels)
    return {
        "Command": f'"{command_line(container, shorten=shorten)}"',
        "CreatedAt": humanize.local_time(container.created),
        "ID": container.short_id if shorten else container.id,
        "Image": container.image_ref,
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "LocalVolumes": str(sum(mount.type == "volume" for mount in container.mounts)),
        "Mounts": Lazy(lambda: ",".join(mount_names(container, shorten=shorten))),
        "Names": container.name,
        "Networks": network_name(container),
        "Platform": container.platform,
        "Ports": Lazy(lambda: ports(container, state)),
        "RunningFor": humanize.ago(container.created),
        "Size": Lazy(lambda: written(paths, container)) if size else "0B",
        "State": state.status,
        "Status": status(state),
        "Label": lambda name: labels.get(name, ""),
    }


def status(state: State, now_ns: int | None = None) -> str:
    """docker's STATUS: "Up 5 seconds (Paused)", "Exited (0) 3 seconds ago", "Created"."""
    now = time.time_ns() if now_ns is None else now_ns
    code = "unknown" if state.exit_code is None else str(state.exit_code)
    if state.status in (RUNNING, PAUSED):
        up = humanize.age(now - humanize.parse_rfc3339(state.started_at)) if state.started_at != NEVER else "now"
        return f"Up {up}{' (Paused)' if state.status == PAUSED else ''}"
    if state.status == RESTARTING:
        return f"Restarting ({code}) {humanize.ago(state.finished_at, now)}"
    if state.status == EXITED:
        when = humanize.ago(state.finished_at, now) if state.finished_at != NEVER else ""
        return f"Exited ({code}) {when}".rstrip()
    return {REMOVING: "Removal In Progress", DEAD: "Dead"}.get(state.status, "Created")


def command_line(container: Container, *, shorten: bool) -> str:
    """The program and its arguments, quoted as docker quotes them; at most 20 characters when shortened."""
    text = " ".join((container.path, *container.args))
    text = _ellipsis(text, COMMAND_WIDTH) if shorten else text
    return "".join(_escaped(char) for char in text)


def mount_names(container: Container, *, shorten: bool) -> list[str]:
    """The volumes' names and the binds' sources."""
    names = [mount.name or mount.source for mount in container.mounts if mount.type != "tmpfs"]
    return [_ellipsis(name, MOUNT_WIDTH) for name in names] if shorten else names


def network_name(container: Container) -> str:
    """The network as docker's NETWORKS column has it; "" when it is another container's."""
    mode = container.options.network
    return "" if mode.startswith(("container:", "ns:")) else mode


def ports(container: Container, state: State) -> str:
    """docker's PORTS: exposed and published ports of a running container."""
    if not state.running or not (container.exposed_ports or state.ports):
        return ""
    from pyrun.netns.ports import format_ps, parse_expose  # loads socket: only containers with ports need it

    return format_ps(state.ports, [pair for text in container.exposed_ports for pair in parse_expose(text)])


def written(paths: Paths, container: Container) -> str:
    """How much the container wrote into its own layer."""
    return humanize.size(disk_usage(f"{paths.container(container.id)}/upper"), 3)


def disk_usage(directory: str) -> int:
    """Bytes of the regular files below a directory; links are not followed, what vanishes meanwhile does not count."""
    import stat

    from pyrun.rootfs.walk import directories

    total = 0
    try:
        for fd, names in directories(directory):
            for name in names:
                try:
                    found = os.lstat(name, dir_fd=fd)
                except OSError:
                    continue
                if not stat.S_ISDIR(found.st_mode):
                    total += found.st_size if found.st_nlink == 1 else found.st_size // found.st_nlink
    except OSError:
        pass  # it is not there, or not ours to read
    return total


def _ellipsis(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _escaped(char: str) -> str:
    """strconv.Quote's view of one character."""
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else char.encode("unicode_escape", "surrogateescape").decode("ascii", "replace")


# ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _id(container: Container, state: State, value: str) -> bool:
    return container.id.startswith(value.lower())


def _name(container: Container, state: State, value: str) -> bool:
    import re  # docker's name filter is a regular expression

    try:
        return re.search(value.removeprefix("/").replace("^/", "^"), container.name) is not None
    except re.error as error:
        raise UsageError(f"--filter name={value}", f"not a regular expression: {error}") from None


def _status(container: Container, state: State, value: str) -> bool:
    return state.status == value


def _exited(container: Container, state: State, value: str) -> bool:
    return state.status == EXITED and str(state.exit_code) == value


def _ancestor(container: Container, state: State, value: str) -> bool:
    short = container.image_id.removeprefix("sha256:")
    tagged = value if ":" in value.rpartition("/")[2] else f"{value}:latest"
    asked = container.image_ref if ":" in container.image_ref.rpartition("/")[2] else f"{container.image_ref}:latest"
    return asked == tagged or (len(value) >= 4 and short.startswith(value.removeprefix("sha256:")))


def _network(container: Container, state: State, value: str) -> bool:
    return network_name(container) == value


def _volume(container: Container, state: State, value: str) -> bool:
    return any(value in (mount.name, mount.source, mount.target) for mount in container.mounts)


def _health(container: Container, state: State, value: str) -> bool:
    return value == "none"


def _port(port: int, protocol: str, value: str) -> bool:
    from pyrun.netns.ports import parse_expose

    return (protocol, port) in parse_expose(value)


def _publish(container: Container, state: State, value: str) -> bool:
    specs = container.options.publish
    asked = any(_port(spec.container_port, spec.proto, value) for spec in specs)
    return asked or any(_port(port.container_port, port.proto, value) for port in state.ports)


def _expose(container: Container, state: State, value: str) -> bool:
    from pyrun.netns.ports import parse_expose

    exposed = {pair for text in container.exposed_ports for pair in parse_expose(text)}
    return not exposed.isdisjoint(parse_expose(value)) or _publish(container, state, value)


FILTERS: dict[str, Callable[[Container, State, str], bool]] = {
    "id": _id,
    "name": _name,
    "status": _status,
    "exited": _exited,
    "ancestor": _ancestor,
    "network": _network,
    "volume": _volume,
    "health": _health,
    "publish": _publish,
    "expose": _expose,
}
FILTER_NAMES = (*FILTERS, "label", "before", "since")
ALSO_STOPPED = ("status", "exited")  # filters that look at stopped containers too, without -a


def fits(container: Container, state: State, filters: Mapping[str, list[str]]) -> bool:
    """Whether a container passes: one value of each filter must fit, every one of `label`."""
    labels = dict(container.labels)
    for name, values in filters.items():
        if name == "label":
            for value in values:
                key, equals, wanted = value.partition("=")
                if key not in labels or (equals and labels[key] != wanted):
                    return False
        elif name in FILTERS and not any(FILTERS[name](container, state, value) for value in values):
            return False
    return True


def select(
    found: list[tuple[Container, State]],
    filters: Mapping[str, list[str]],
    created: Callable[[str], str],
    *,
    everything: bool,
    last: int = -1,
) -> list[tuple[Container, State]]:
    """The containers that ps shows, newest first. Raises UsageError for a status that there is not.

    `everything`: stopped ones too; `last`: only so many (and stopped ones too); `created(reference)`: when the
    container of --filter before= or since= was created.
    """
    for value in filters.get("status", ()):
        if value not in STATUSES:
            raise UsageError(f"--filter status={value}", "no such status", hint=f"one of {', '.join(STATUSES)}")
    everything = everything or last >= 0 or any(name in filters for name in ALSO_STOPPED)
    before = min((created(name) for name in filters.get("before", ())), default="~")
    since = max((created(name) for name in filters.get("since", ())), default="")
    chosen = [
        (container, state)
        for container, state in found
        if (everything or state.running) and since < container.created < before and fits(container, state, filters)
    ]
    return chosen[:last] if last >= 0 else chosen
