# SPDX-License-Identifier: Apache-2.0
"""The programs of the host that scripts/vm runs, and the Debian packages that bring them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from .errors import VmError

PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "unshare": "util-linux",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def program(name: str) -> str:
    """The absolute path of a program of PACKAGES. Raises VmError when it is missing."""
    found = shutil.which(name, path=PATH)
    if not found:
        raise VmError(f"{name} is missing: apt-get install {PACKAGES[name]}")
    return found


def install_missing() -> None:
    """Installs by apt what is missing, and does nothing at all when nothing is. Raises VmError."""
    missing = sorted({package for name, package in PACKAGES.items() if not shutil.which(name, path=PATH)})
    if not missing:
        return
    if not shutil.which("apt-get", path=PATH):
        raise VmError(f"install {' '.join(missing)}: there is no apt-get on this machine")
    print(f"vm: installing {' '.join(missing)}", file=sys.stderr, flush=True)
    install = ["apt-get", "install", "-qq", "--no-install-recommends", *missing]
    if run_quietly(install).returncode:
        run_quietly(["apt-get", "update", "-qq"])  # the usual reason: no package lists, or stale ones
        done = run_quietly(install)
        if done.returncode:
            raise VmError(f"install {' '.join(missing)}: {last_line(done.stderr)}")


def run_quietly(argv: list[str], *, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program of the host with its output caught, in the C locale and without questions from debconf."""
    env = {"PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
    env |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=env, cwd=cwd)


def last_line(output: str) -> str:
    """What a failed program said last, for the one line that the user sees."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it failed without a word"
