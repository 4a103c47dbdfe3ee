# SPDX-License-Identifier: Apache-2.0
"""Reading and writing the small files of a cgroup directory (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import os

from pyrun.runtime.events import step

ENOENT, ENODEV = 2, 19


def read(directory: str, name: str) -> str:
    """The content of one file. Raises OSError: ENOENT without its controller, ENODEV when the cgroup is gone."""
    fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 65536)
        if len(data) < 65536 and not data.endswith(b"\n"):
            return data.decode()
        parts = [data]  # cgroup.procs comes in pieces of a page at most
        while data:
            data = os.read(fd, 65536)
            parts.append(data)
        return b"".join(parts).decode()
    finally:
        os.close(fd)


def write(directory: str, name: str, value: str) -> None:
    """Writes `value` in one write(2), as the kernel wants it. Raises OSError.

    Never creates a file: a missing one means that the controller is not enabled.
    """
    with step("cgroup", f"echo {value} > {directory}/{name}"):
        fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)


def flat_keyed(text: str) -> dict[str, int]:
    """ "populated 1\\nfrozen 0\\n" as a dict; lines of any other shape are left out."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdecimal() and value.isascii():
            found[key] = int(value)
    return found


def child_groups(directory: str) -> list[str]:
    """The names of the cgroups directly below `directory`; [] when it is gone."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return []
        raise


def subtree(directory: str) -> list[str]:
    """`directory` and every cgroup below it, parents first."""
    found = [directory]
    for parent in found:  # grows while it is walked
        try:
            found.extend(f"{parent}/{name}" for name in child_groups(parent))
        except OSError:  # nested beyond PATH_MAX, or gone in between: what can be seen is what we report
            continue
    return found
