# SPDX-License-Identifier: Apache-2.0
"""The exception tree, and what the user sees of it.

PyrunError                 anything that ends a command with one line (exit code 125 unless said otherwise)
├── UsageError             the command line is wrong: bad flag, bad value (125)
├── SpecError              config.json or a request is wrong: the message starts with the JSON path (125)
├── NotFound               no such container, image, network, volume, process (125)
├── Conflict               a name, port or state is taken or in the way (125)
├── Unsupported            this kernel or machine lacks what was asked for; says which and how to get it (125)
├── MonitorEnded           the monitor was killed while it worked for this command; containers go on (125)
└── StartError             a step of the plan failed; carries step, errno and path (125, 126 or 127)

Grammar (docs/STYLE in CONTRIBUTING.md): lower case, no final period, `what: why`; an outer layer adds a phrase
with add_note(). Only the command line prints, once: `pyrun: what: why`, then `hint: …` on a line of its own.
"""

from __future__ import annotations

EXIT_FAULT = 125  # pyrun's own fault or the user's request: nothing was started
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class PyrunError(Exception):
    """An error for the user: `what` (verb and object), `why` (the reason), `hint` (what to do about it).

    Args:
        what: what was attempted or is wrong, such as "run web".
        why: the reason, such as "no such image 'flask-app'"; may be empty when `what` says it all.
        hint: one sentence of advice, or "".
        code: the exit code of the command (docker's: 125, 126, 127).
    """

    def __init__(self, what: str, why: str = "", *, hint: str = "", code: int = EXIT_FAULT) -> None:
        super().__init__(f"{what}: {why}" if why else what)
        self.what = what
        self.why = why
        self.hint = hint
        self.code = code


class UsageError(PyrunError):
    """The command line cannot be understood."""


class SpecError(PyrunError):
    """A configuration is wrong; `what` is the JSON path, such as "config.json: mounts[3].options[1]"."""


class NotFound(PyrunError):
    """The named container, image, network, volume or process does not exist."""


class Conflict(PyrunError):
    """A name, a port or the object's state is in the way."""


class Unsupported(PyrunError):
    """This kernel or machine lacks something; `hint` says how to get it."""


class MonitorEnded(PyrunError):
    """The connection to the monitor was lost: it was killed. The next command starts another one."""


class StartError(PyrunError):
    """A step of the plan failed. `errno` is 0 when the failure was not a system call's."""

    def __init__(
        self, what: str, why: str = "", *, hint: str = "", code: int = EXIT_FAULT, errno: int = 0, path: str = ""
    ) -> None:
        super().__init__(what, why, hint=hint, code=code)
        self.errno = errno
        self.path = path
