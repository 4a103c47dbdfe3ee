# SPDX-License-Identifier: Apache-2.0
"""--ssh: the socket of the agent that a RUN may use: the caller's, one by its path, or one started here for keys."""

from __future__ import annotations

import os
import stat

from pyrun.runtime.errors import NotFound, PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .options import Agent

WAIT_S = 5.0


def socket_of(agent: Agent, closing: Callable[[Callable[[], Any]], None]) -> str:
    """The path of the agent's socket. `closing` takes what ends an agent that was started. Raises NotFound."""
    if not agent.paths:
        path = os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise NotFound(
                f"ssh agent '{agent.id}'", "$SSH_AUTH_SOCK is not set", hint="start one, or --ssh default=KEY"
            )
        return path
    for path in agent.paths:
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            raise NotFound(f"--ssh {agent.id}={path}", os.strerror(error.errno or 0).lower()) from None
        if stat.S_ISSOCK(mode):
            return path
    return _started(agent, closing)


def _started(agent: Agent, closing: Callable[[Callable[[], Any]], None]) -> str:
    """An ssh-agent of our own with the keys in it."""
    import subprocess
    import tempfile
    import time

    from pyrun.rootfs.inroot import remove_path

    directory = tempfile.mkdtemp(prefix="pyrun-ssh-")
    closing(lambda: remove_path(directory))
    path = f"{directory}/agent"
    try:
        process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
    except FileNotFoundError:
        raise NotFound(
            "ssh-agent", "it is not installed", hint="apt install openssh-client, or --ssh with a socket"
        ) from None
    closing(process.wait)
    closing(process.terminate)  # first: they run last to first
    deadline = time.monotonic() + WAIT_S
    while not os.path.exists(path):
        if time.monotonic() > deadline or process.poll() is not None:
            raise PyrunError("start ssh-agent", "it does not answer")
        time.sleep(0.01)
    added = subprocess.run(
        ["ssh-add", "-q", *agent.paths], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env={**os.environ, "SSH_AUTH_SOCK": path},
    )  # fmt: skip
    if added.returncode != 0:
        why = (added.stderr.strip().splitlines() or ["it was refused"])[-1]
        raise PyrunError(f"--ssh {agent.id}", f"ssh-add: {why}", hint="a key with a passphrase belongs into your agent")
    return path
