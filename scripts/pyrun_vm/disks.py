# SPDX-License-Identifier: Apache-2.0
"""The virtual environment and the checkout as ext4 disks.

Reading files there takes a third to two thirds of the time that 9p takes, and what was read before the snapshot takes
none. They are copies: nothing that the guest does reaches the host's files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator

from .cache import Cache
from .errors import VmError
from .packages import last_line, program, run_quietly

CHECKOUT_BYTES = 1 << 30  # fixed: the snapshot remembers the size of the disk
CHECKOUT_LIMIT = 512 << 20  # what may be in it, so that the tests have room too
SKIPPED = {".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "node_modules"}
PYTHON = "/usr/bin/python3"


def make_disk(path: str, source: str, size: int, *, inodes: int = 0) -> None:
    """An ext4 file system of `size` bytes (sparse) with the files under `source`. Raises VmError.

    No journal and no checksums: the disk is never used twice, and both cost time under emulation.
    """
    argv = [program("mke2fs"), "-q", "-F", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0"]
    argv += ["-N", str(inodes)] if inodes else []
    done = run_quietly([*argv, "-d", source, path, f"{size // 1024}k"])
    if done.returncode:
        raise VmError(f"make a disk from {source}: {last_line(done.stderr)}")


def venv_disk(cache: Cache, venv: str) -> str:
    """The file of the disk with the virtual environment at `venv`, made when its installed files have changed."""
    sources = (venv, _installed(venv))
    made = cache.entry("venv", sources, f"the disk of {venv}", lambda path: _make_venv(f"{path}/venv.img", venv))
    return f"{made}/venv.img"


def _installed(venv: str) -> list[tuple[str, str]]:
    """What tells one state of a virtual environment from another: each package's RECORD, which has every file's
    hash, and the files that pip and `venv` write beside the packages."""
    found = []
    for directory, _, names in sorted(os.walk(venv)):
        top = directory.endswith("site-packages")
        for name in sorted(names):
            if name == "RECORD" or (top and name != "distutils-precedence.pth") or name == "pyvenv.cfg":
                with open(f"{directory}/{name}", "rb") as file:
                    found.append((f"{directory}/{name}", hashlib.sha256(file.read()).hexdigest()))
    if not found:
        raise VmError(f"{venv} is no virtual environment: it has no pyvenv.cfg")
    return found


def _make_venv(target: str, venv: str) -> None:
    total = sum(os.lstat(f"{directory}/{name}").st_size for directory, _, names in os.walk(venv) for name in names)
    make_disk(target, venv, total * 3 // 2 + (64 << 20))


def checkout_disk(cache: Cache, checkout: str) -> str:
    """The file of the disk with the checkout at `checkout`, as it is now: untracked and built files too, no .git."""
    files = list(_files(checkout))
    total = sum(status.st_size for _, status in files)
    if total > CHECKOUT_LIMIT:
        raise VmError(
            f"{checkout} has {total >> 20} MiB of files, more than the {CHECKOUT_LIMIT >> 20} MiB of its disk"
        )
    state = [(path, status.st_mode, status.st_size, status.st_mtime_ns) for path, status in files]
    made = cache.entry("checkout", (checkout, state), "", lambda path: _make_checkout(path, checkout, files))
    return f"{made}/checkout.img"


def _files(checkout: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below `checkout`, relative and sorted, without caches, the repository and virtual environments."""
    for directory, subdirectories, names in os.walk(checkout):
        subdirectories[:] = sorted(
            name
            for name in subdirectories
            if name not in SKIPPED and not os.path.exists(f"{directory}/{name}/pyvenv.cfg")
        )
        links = [name for name in subdirectories if os.path.islink(f"{directory}/{name}")]
        for name in sorted(names + links):
            path = f"{directory}/{name}"
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue  # somebody is at work in the checkout: a file that went away is not part of it
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield os.path.relpath(path, checkout), status


def _make_checkout(path: str, checkout: str, files: list[tuple[str, os.stat_result]]) -> None:
    stage = f"{path}/stage"
    os.mkdir(stage, 0o755)
    for name, _ in files:
        os.makedirs(os.path.dirname(f"{stage}/{name}"), exist_ok=True)
        try:
            shutil.copy2(f"{checkout}/{name}", f"{stage}/{name}", follow_symlinks=False)
        except FileNotFoundError:
            continue
    # Compiling is 20 times slower in the guest; modules that are compiled already are left alone, and one with a
    # syntax error is the guest's to complain about.
    run_quietly([PYTHON, "-I", "-m", "compileall", "-q", "-s", stage, "-p", checkout, stage])
    make_disk(f"{path}/checkout.img", stage, CHECKOUT_BYTES)
    shutil.rmtree(stage)
