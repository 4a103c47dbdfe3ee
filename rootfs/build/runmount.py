# SPDX-License-Identifier: Apache-2.0
"""`RUN --mount=type=cache,target=/root/.cache`: the keys that BuildKit's reference documents, checked per type.

bind    target source from rw             files of the context, of a stage or an image; read-only unless rw
cache   target id ro sharing from source mode uid gid
tmpfs   target size
secret  id target env required mode uid gid     a file, or with env= a variable
ssh     id target required mode uid gid         the socket of an agent
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

from . import quantities
from .expand import expand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .expand import Lookup

SHARING = ("shared", "private", "locked")
_FILE = ("mode", "uid", "gid")
TYPES: dict[str, frozenset[str]] = {
    "bind": frozenset(("target", "source", "from", "read_only")),
    "cache": frozenset(("target", "id", "read_only", "sharing", "from", "source", *_FILE)),
    "tmpfs": frozenset(("target", "size", "read_only")),
    "secret": frozenset(("id", "source", "target", "env", "required", "read_only", *_FILE)),
    "ssh": frozenset(("id", "target", "required", "read_only", *_FILE)),
}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = (
    "type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "size", "mode", "uid",
    "gid", "env",
)  # fmt: skip
_SWITCHES = ("readonly", "readwrite", "required")


class Mount(Record):
    """One --mount. Paths are as written: `target` may be relative to WORKDIR, `source` to the root of where it is from.

    `id` is filled in: a cache's is its target, a secret's its source or the target's last part, an agent's "default".
    """

    type: str
    target: str = ""
    source: str = ""
    from_: str = ""  # a stage, an image or a --build-context; "" the context (bind) or nothing (cache)
    read_only: bool = False
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    size: int = 0  # bytes; 0 for the kernel's default
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None  # the variable that gets the secret


def parse_mount(text: str, lookup: Lookup | None = None, *, escape: str = "\\", used: set[str] | None = None) -> Mount:
    """The mount in `text`, its values expanded with `lookup`.

    Without a lookup (when the file is read) a value with a $ in it is left out, and only the rest is checked.
    Raises UsageError ("--mount type=cach": unknown type …) and expand.ExpandError.
    """
    try:
        items = quantities.split_csv(text)
    except ValueError as error:
        raise _bad(text, str(error)) from None
    given: dict[str, str | None] = {}  # None: known only when the step runs
    for item in items:
        key, equals, value = item.partition("=")
        name = _ALIASES.get(key.lower(), key.lower())
        if name not in _KEYS:
            raise _bad(text, f"unknown key '{key}'", _meant(name, (*_KEYS, *_ALIASES)))
        if not equals and name not in _SWITCHES:
            raise _bad(text, f"'{key}' needs a value", f"write {key}=…")
        if name == "from" and "$" in value[:-1]:
            raise _bad(text, "variables are not expanded in from=", "name a stage: FROM $image AS name, then from=name")
        if not equals:
            given[name] = "true"
        elif lookup is not None:
            given[name] = expand(value, lookup, escape=escape, used=used)
        else:
            given[name] = None if "$" in value else value
    return _complete(text, given)


def _complete(text: str, given: dict[str, str | None]) -> Mount:
    kind = given.pop("type", "bind")
    if kind is None:
        return Mount("bind")  # nothing more can be said yet
    kind = kind.lower()
    if kind not in TYPES:
        raise _bad(text, f"unknown type '{kind}'", _meant(kind, TYPES) or f"known are {', '.join(TYPES)}")
    fields: dict[str, Any] = {"read_only": kind in ("bind", "secret", "ssh")}
    for key, value in given.items():
        field = "read_only" if key in ("readonly", "readwrite") else key
        if field not in TYPES[kind]:
            raise _bad(text, f"'{key}' is not for type={kind}", _owners(field))
        if value is not None:
            fields["from_" if field == "from" else field] = _value(text, key, value)
    return _finished(text, kind, fields, later=None in given.values())


def _value(text: str, key: str, value: str) -> Any:
    parse = _VALUES.get(key)
    if parse is None:
        return value
    try:
        return parse(value)
    except ValueError as error:
        raise _bad(text, f"{key}={value} is not valid", str(error)) from None


def _sharing(value: str) -> str:
    if value.lower() not in SHARING:
        raise ValueError(_meant(value, SHARING) or f"write one of {', '.join(SHARING)}")
    return value.lower()


_VALUES: dict[str, Callable[[str], Any]] = {
    "readonly": quantities.switch,
    "readwrite": lambda value: not quantities.switch(value),
    "required": quantities.switch,
    "size": quantities.size,
    "mode": quantities.octal,
    "uid": quantities.number,
    "gid": quantities.number,
    "sharing": _sharing,
}


def _finished(text: str, kind: str, fields: dict[str, Any], *, later: bool) -> Mount:
    """The record, with the ids that follow from other keys; what is missing is an error unless it comes `later`."""
    target = fields.get("target", "")
    if kind == "secret":
        source = fields.pop("source", "")
        if source and fields.get("id"):
            raise _bad(text, "source= and id= are the same thing", "give one of them")
        fields["id"] = fields.get("id") or source or target.rstrip("/").rpartition("/")[2]
        if not fields["id"] and not later:
            raise _bad(text, "which secret is it", "write id=<name>, as in build --secret id=<name>,src=<file>")
    elif kind == "ssh":
        fields["id"] = fields.get("id") or "default"
    elif kind == "cache":
        fields["id"] = fields.get("id") or _clean(target)
    return Mount(kind, **fields)


def _clean(path: str) -> str:
    """Go's path.Clean(): /a//b/../c/ is /a/c."""
    import posixpath

    cleaned = posixpath.normpath(path) if path else "."
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _owners(field: str) -> str:
    return f"it is for {' and '.join(kind for kind in TYPES if field in TYPES[kind])}"


def _meant(word: str, known: Any) -> str:
    from .nearest import did_you_mean

    return did_you_mean(word, known)


def _bad(text: str, why: str, hint: str = "") -> UsageError:
    return UsageError(f"--mount={text}", why, hint=hint)
