# SPDX-License-Identifier: Apache-2.0
"""From nothing to a resumed machine: what is missing is made, in the order in which one thing needs the other."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple

from . import session
from .base import base
from .cache import Cache, contents
from .disks import CHECKOUT_BYTES, checkout_disk, venv_disk
from .errors import VmError
from .initramfs import initramfs
from .machine import Hardware, Machine, Shares, make_snapshot, qemu_identity


class Wishes(NamedTuple):
    """What kind of machine is wanted."""

    checkout: str
    venv: str  # "" for none
    out: str  # directory, "" for none
    console: str  # file, "" for none
    systemd: bool
    mebibytes: int
    cpus: int


def ready(cache: Cache, wishes: Wishes, log: Callable[[str], None]) -> tuple[Machine, session.Control]:
    """A machine that takes a job. The caller holds the cache's lock, and ends the machine. Raises VmError, OSError."""
    snapshot, hardware, shares = _snapshot(cache, wishes)
    log("the snapshot is there")
    shares = shares._replace(checkout=checkout_disk(cache, wishes.checkout))
    log("the checkout's disk is there")
    if wishes.out:
        os.makedirs(wishes.out, exist_ok=True)
        shares = shares._replace(out=wishes.out)
    try:
        return _resume(hardware, shares, snapshot)
    except VmError as error:  # a file of it was lost when the host crashed, or qemu finds that it does not fit
        print(f"vm: {error}: trying again with a new snapshot", file=sys.stderr, flush=True)
        shutil.rmtree(snapshot)
        return _resume(hardware, shares, _snapshot(cache, wishes)[0])


def _snapshot(cache: Cache, wishes: Wishes) -> tuple[str, Hardware, Shares]:
    """The snapshot's directory and what it was made with: its checkout is an empty disk of the right size."""
    root = base(cache)
    hardware = Hardware(
        kernel=f"{root}/vmlinux",
        initramfs=initramfs(cache, root),
        root=f"{root}/root.img",
        venv=venv_disk(cache, wishes.venv) if wishes.venv else "",
        systemd=wishes.systemd,
        mebibytes=wishes.mebibytes,
        cpus=wishes.cpus,
    )
    blank = f"{cache.directory('blank')}/disk.img"
    with open(blank, "ab") as file:
        file.truncate(CHECKOUT_BYTES)
    shares = Shares(blank, cache.directory("empty"), cache.directory("hostview"), wishes.console)
    path = cache.entry(
        f"snapshot-{'systemd' if wishes.systemd else 'tiny'}",
        (hardware, qemu_identity(), contents([f"{os.path.dirname(__file__)}/machine.py"])),
        "the snapshot",
        lambda path: make_snapshot(hardware, shares, path, session.wait_for_agent),
    )
    return path, hardware, shares


def _resume(hardware: Hardware, shares: Shares, snapshot: str) -> tuple[Machine, session.Control]:
    machine = Machine(hardware, shares, snapshot, resume=True)
    try:
        return machine, session.greet(machine)
    except BaseException:
        machine.kill()
        raise
