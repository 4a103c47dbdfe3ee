# SPDX-License-Identifier: Apache-2.0
"""pyrun: the command. Hands what the monitor does to the monitor, and imports the rest only when it runs here.

This file is on the path of every start: it imports what it needs in the branch that needs it.
"""

from __future__ import annotations

import os
import sys

from pyrun.runtime.cli.table import COMMANDS, GROUPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# global flags -> the environment variable that says the same, to this process and to the worker in the monitor
ROOTS = {"--data-root": "PYRUN_DATA_ROOT", "--run-root": "PYRUN_RUN_ROOT"}
DEBUG = {"--debug": "PYRUN_DEBUG", "-D": "PYRUN_DEBUG"}
HERE = ("--help", "--explain")  # with one of these a warm command looks at its command line in this process first


def main() -> int:
    """The `pyrun` command: gives the exit code. Never raises, but for a bug in itself."""
    words = global_flags(sys.argv[1:])
    command, _ = find(words)
    if command and COMMANDS[command][2] and not any(word in words for word in HERE):
        return forward(words)
    from pyrun.runtime.cli import dispatch

    return dispatch.run_command(words)


def global_flags(argv: Sequence[str]) -> list[str]:
    """Moves the global flags at the front of a command line into the environment; gives the words after them."""
    words = list(argv)
    while words:
        name, equals, value = words[0].partition("=")
        if name in ROOTS and (equals or len(words) > 1):
            os.environ[ROOTS[name]] = os.path.abspath(value if equals else words[1])
            del words[: 1 if equals else 2]
        elif words[0] in DEBUG:
            os.environ[DEBUG[words.pop(0)]] = "1"
        else:
            break
    return words


def find(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command that `words` name, "" if there is none, and the words after it."""
    first = words[0] if words else ""
    if first in GROUPS:
        return (GROUPS[first].get(words[1], "") if len(words) > 1 else ""), list(words[2:])
    return (first if first in COMMANDS and " " not in first else ""), list(words[1:])


def forward(words: Sequence[str]) -> int:
    """Lets the monitor run the command line as if it were this process; gives its exit code."""
    from pyrun.runtime import paths
    from pyrun.runtime.errors import PyrunError

    try:
        from pyrun.runtime.monitor import client

        return client.forward(list(words), paths.default())
    except (PyrunError, OSError, KeyboardInterrupt) as error:
        from pyrun.runtime.cli import dispatch

        return dispatch.failed(error)


if __name__ == "__main__":
    sys.exit(main())
