# SPDX-License-Identifier: Apache-2.0
"""Errors on their way between processes: a PyrunError as JSON and back, with its class, hint, code and notes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def error_of(answer: Mapping[str, Any]) -> Exception:
    """The PyrunError (of the class that was raised) that an ERROR frame carries."""
    from pyrun.runtime import errors

    kind = getattr(errors, str(answer.get("kind")), errors.PyrunError)
    if not (isinstance(kind, type) and issubclass(kind, errors.PyrunError)):
        kind = errors.PyrunError
    error = kind(str(answer["what"]), str(answer["why"]), hint=str(answer["hint"]), code=int(answer["code"]))
    for note in answer.get("notes") or ():
        error.add_note(str(note))
    return error


def describe_error(error: BaseException) -> dict[str, object]:
    """The payload of an ERROR frame: what error_of() turns back into an exception."""
    from pyrun.runtime.errors import EXIT_FAULT, PyrunError

    if isinstance(error, PyrunError):
        what, why, hint, code = error.what, error.why, error.hint, error.code
    else:  # not for users; but whoever sees it must know what it was
        what, why, hint, code = type(error).__name__, str(error), "", EXIT_FAULT
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    return {"kind": type(error).__name__, "what": what, "why": why, "hint": hint, "code": code, "notes": notes}
