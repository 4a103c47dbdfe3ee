# SPDX-License-Identifier: Apache-2.0
"""Volumes: volumes/<name>/{_data,volume.json}. Named ones live until they are removed, anonymous ones go with --rm and
rm -v.

    volumes/lock               held while volumes appear and disappear
    volumes/<name>/lock        held while the image's content is copied into an empty volume
    volumes/<name>/copying     such a copy is not finished: who uses the volume next does it again
"""

from __future__ import annotations

import os
import time

from pyrun.runtime import files
from pyrun.runtime.errors import Conflict, NotFound, UsageError
from pyrun.runtime.events import step
from pyrun.runtime.record import Record

from .disk import writing
from .entry import FILE, SOCKET
from .importing import rfc3339
from .inroot import remove_path
from .layered import Stack
from .tree import TreeWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from pyrun.runtime.paths import Paths

    Names = list[str]

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_CHARS = _FIRST | frozenset("_.-")


class Volume(Record):
    """One volume. mountpoint: the directory to bind; created: RFC 3339."""

    name: str
    mountpoint: str
    created: str
    labels: Mapping[str, str] = {}
    anonymous: bool = False


class VolumeStore:
    """The volumes of a data root. Creating one touches no disk."""

    def __init__(self, paths: Paths) -> None:
        self.path = f"{paths.data}/volumes"

    def create(self, name: str = "", labels: Mapping[str, str] | None = None, *, anonymous: bool = False) -> Volume:
        """The volume `name`, made if it is missing; without a name a new anonymous one. Raises UsageError, OSError."""
        anonymous = anonymous or not name
        name = name or os.urandom(32).hex()
        check_name(name)
        with writing(f"create volume {name}"), self._lock():
            self._recover()
            if not os.path.exists(f"{self.path}/{name}/volume.json"):
                with step("rootfs", f"create volume {name}"):
                    self._make(name, dict(labels or {}), anonymous)
        return self.get(name)

    ensure = create

    def get(self, name: str) -> Volume:
        """The volume `name`. Raises NotFound."""
        try:
            found = files.read_json(f"{self.path}/{name}/volume.json") if is_name(name) else None
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if not isinstance(found, dict):
            raise NotFound(f"no such volume '{name}'", hint="pyrun volume ls lists them")
        return Volume(
            name, f"{self.path}/{name}/_data", found["created"], found.get("labels") or {}, bool(found.get("anonymous"))
        )

    def list(self) -> list[Volume]:
        """Every volume, by name."""
        try:
            names = sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            try:
                found.append(self.get(name))
            except NotFound:
                continue  # the lock, or one that is going
        return found

    def inspect(self, volume: Volume) -> dict[str, Any]:
        """As docker's `volume inspect` prints it."""
        return {
            "CreatedAt": volume.created,
            "Driver": "local",
            "Labels": dict(volume.labels),
            "Mountpoint": volume.mountpoint,
            "Name": volume.name,
            "Options": None,
            "Scope": "local",
        }

    def remove(self, name: str, *, force: bool = False, in_use: Callable[[str], Names] = lambda name: []) -> None:
        """Removes a volume and what is in it. `in_use`: volume name -> containers that mount it, running or not.

        force: a volume that is not there is no error. Raises NotFound, Conflict (used, even with force), OSError.
        """
        with writing(f"remove volume {name}"), self._lock():
            self._recover()
            try:
                self.get(name)
            except NotFound:
                if force:
                    return
                raise
            users = in_use(name)
            if users:
                raise Conflict(
                    f"cannot remove volume '{name}'",
                    f"container {', '.join(users[:3])} uses it",
                    hint="remove the container first: pyrun rm",
                )
            with step("rootfs", f"remove volume {name}"):
                os.rename(f"{self.path}/{name}", f"{self.path}/{name}.del:")
                remove_path(f"{self.path}/{name}.del:")

    def copy_up(self, volume: Volume, layers: Sequence[str], destination: str) -> bool:
        """Fills an empty volume with what the image has where it is mounted; True if it did.

        Args:
            layers: the image's layer directories, topmost first.
            destination: the mount point in the container.

        The content keeps owners, modes, attributes and links, and the volume's top takes those of the mount point.
        Nothing happens when the volume has content or the image has no directory there. Raises ArchiveError, OSError.
        """
        place = f"{self.path}/{volume.name}"
        mark = f"{place}/copying"
        with writing(f"fill volume {volume.name}"), files.Lock(f"{place}/lock"), Stack(layers) as stack:
            if os.listdir(volume.mountpoint) and not os.path.exists(mark):
                return False
            path = stack.resolve(tuple(os.fsencode(destination).split(b"/")))
            if stack.directory(path) is None:
                return False
            with step("rootfs", f"copy {destination} of the image to volume {volume.name}"):
                os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                self._fill(volume, stack, path)
                os.unlink(mark)
            return True

    def _fill(self, volume: Volume, stack: Stack, path: tuple[bytes, ...]) -> None:
        root_fd = os.open(volume.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with TreeWriter(root_fd) as writer:
                for entry, own in stack.walk(path):
                    if entry.kind is not SOCKET:
                        writer.add(entry, stack.data(own) if entry.kind is FILE else ())
        finally:
            os.close(root_fd)

    def _lock(self) -> files.Lock:
        files.private_dir(self.path)
        return files.Lock(f"{self.path}/lock")

    def _make(self, name: str, labels: dict[str, str], anonymous: bool) -> None:
        """Complete under a temporary name, then renamed: a volume is there with its data directory or not at all."""
        temporary = f"{self.path}/{name}.new:"
        os.mkdir(temporary, 0o700)
        try:
            os.mkdir(f"{temporary}/_data", 0o755)
            os.chmod(f"{temporary}/_data", 0o755)  # whatever the umask is: any user of the container may look in
            created = rfc3339(time.time())
            files.write_json(
                f"{temporary}/volume.json", {"name": name, "created": created, "labels": labels, "anonymous": anonymous}
            )
            os.rename(temporary, f"{self.path}/{name}")
        except BaseException:
            remove_path(temporary)
            raise

    def _recover(self) -> None:
        """Removes what dead processes left; the lock is held. No volume's name has a colon."""
        for name in os.listdir(self.path):
            if name.endswith(":"):
                remove_path(f"{self.path}/{name}")


def is_name(name: str) -> bool:
    """Whether `name` can name a volume: docker's [a-zA-Z0-9][a-zA-Z0-9_.-]+, at most a file name's 255 bytes."""
    return 2 <= len(name) <= 250 and name[0] in _FIRST and _CHARS.issuperset(name)


def check_name(name: str) -> None:
    """Raises UsageError unless is_name()."""
    if not is_name(name):
        raise UsageError(
            f"invalid volume name '{name}'",
            "two or more letters, digits, '_', '.' and '-', the first a letter or digit",
            hint="to mount a host directory write its absolute path",
        )
