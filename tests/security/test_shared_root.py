# SPDX-License-Identifier: Apache-2.0
"""A root file system that somebody else changes while a container starts on it: two containers of one bundle, or an
orchestrator's snapshot with a process left in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from requires import requires

if TYPE_CHECKING:
    from cli import Pyrun

pytestmark = requires(root=True)

# Exchanges a device node for a symbolic link and back, as fast as it can: renameat2(RENAME_EXCHANGE), rename(2).
SWAP = """
import ctypes, sys
libc = ctypes.CDLL(None)
a, b = (word.encode() for word in sys.argv[1:])
while True:
    libc.renameat2(-100, a, -100, b, 2)
"""


def test_a_device_swapped_for_a_link_gives_no_rights_to_a_file_of_the_host(
    pyrun: Pyrun, busybox_tar: str, tmp_path: Path
) -> None:
    """Owner and mode are set on the node that was made, whatever its name leads to by then (CVE-2026-41579's class)."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    bundle = tmp_path / "bundle"
    with tarfile.open(busybox_tar) as tar:
        tar.extractall(bundle / "rootfs")
    dev = bundle / "rootfs/dev"
    dev.mkdir(exist_ok=True)
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        (dev / name).unlink(missing_ok=True)
    os.mknod(dev / "null", 0o020666, os.makedev(1, 3))
    (dev / "link").symlink_to(secret)
    config = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    }
    (bundle / "config.json").write_text(json.dumps(config))
    oci = [str(Path(pyrun.command).with_name("pyrun-oci")), "--root", str(tmp_path / "state")]

    def call(*words: str) -> int:
        # no pipes: what is created holds them open
        return subprocess.run(
            [*oci, *words],
            env=pyrun.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        ).returncode

    swapper = subprocess.Popen([sys.executable, "-c", SWAP, dev / "null", dev / "link"])
    made = 0
    try:
        for number in range(40):
            done = call("create", "--bundle", str(bundle), f"shared{number}")
            assert call("delete", "--force", f"shared{number}") == 0
            made += done == 0
            assert oct(secret.stat().st_mode) == "0o100600", f"try {number}"
            assert (secret.stat().st_uid, secret.stat().st_nlink) == (0, 1)
    finally:
        swapper.kill()
        swapper.wait()
    assert made, "at least some must have got past the device"
