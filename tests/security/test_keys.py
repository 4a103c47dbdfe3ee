# SPDX-License-Identifier: Apache-2.0
"""The kernel's keys, keyrings(7): those of whoever calls pyrun are not the container's."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)

ADD_KEY, KEYCTL = {"x86_64": (248, 250)}.get(platform.machine(), (217, 219))  # and asm-generic/unistd.h

# A session keyring with a key in it, as a login makes it; then pyrun, and with it its monitor.
LOGIN = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
if libc.syscall({KEYCTL}, 1, b"callers", 0, 0, 0) < 0:  # KEYCTL_JOIN_SESSION_KEYRING
    sys.exit(77)
libc.syscall({ADD_KEY}, b"user", b"callers-secret", b"hunter2", 7, -3)  # KEY_SPEC_SESSION_KEYRING
os.execv(sys.argv[1], sys.argv[1:])
"""


# What the session keyring's description is, KEYCTL_DESCRIBE; and whether the caller's key can be found and read.
LOOK = """
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    char name[200] = "", secret[20] = "";
    syscall(SYS_keyctl, 6, -3, name, sizeof name - 1);
    long key = syscall(SYS_keyctl, 10, -3, "user", "callers-secret", 0);
    if (key > 0) syscall(SYS_keyctl, 11, key, secret, sizeof secret - 1);
    printf("session %s secret '%s'\\n", name, secret);
}
"""


def test_no_key_of_the_caller_is_reachable(other_pyrun: Callable[[], Pyrun], busybox_tar: str, tmp_path: Path) -> None:
    """A session keyring is inherited over fork and execve; without a filter the program could read what is in it."""
    subprocess.run(["cc", "-static", "-xc", "-", "-o", tmp_path / "look"], input=LOOK.encode(), check=True, timeout=60)
    pyrun = other_pyrun()
    pyrun.ok("import", "--change", 'CMD ["sh"]', busybox_tar, "busybox:latest")
    command = ["run", "-d", "--name", "keys", "--security-opt", "seccomp=unconfined", "-v", f"{tmp_path}:/x",
               "busybox", "sh", "-c", "/x/look; sleep 60"]  # fmt: skip
    login = [sys.executable, "-c", LOGIN, pyrun.command, *command]
    done = subprocess.run(login, env=pyrun.environ, timeout=60, check=False, stdout=subprocess.DEVNULL)
    if done.returncode == 77:
        pytest.skip("the kernel has no keys")
    assert done.returncode == 0
    for seen in (pyrun.ok("exec", "keys", "/x/look"), pyrun.ok("logs", "keys")):
        assert "session keyring;" in seen, seen
        assert "callers" not in seen, seen
        assert seen.endswith("secret ''"), seen
    pyrun.ok("rm", "-f", "keys")
