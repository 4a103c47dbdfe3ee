# SPDX-License-Identifier: Apache-2.0
"""-v, --mount and --tmpfs in docker's three languages, as MountOptions.

Sources: docker's reference for `docker run` and the volumes, bind-mounts and tmpfs pages. Paths are made absolute and
normal here; whether a source exists is the engine's to find out.
"""

from __future__ import annotations

import os

from pyrun.runtime.engine.humanize import parse_size
from pyrun.runtime.engine.names import is_name
from pyrun.runtime.engine.options import MountOption
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
IGNORED = ("consistent", "cached", "delegated")  # macOS hints that docker accepts everywhere
# an option of -v -> the fields it sets
VOLUME_OPTIONS: dict[str, dict[str, Any]] = {
    "ro": {"readonly": True},
    "rw": {"readonly": False},
    "z": {"selinux": "z"},
    "Z": {"selinux": "Z"},
    "nocopy": {"nocopy": True},
    **{name: {"propagation": name} for name in PROPAGATION},
    **{name: {} for name in IGNORED},
}
RECURSIVE = ("enabled", "disabled", "writable", "readonly")
TMPFS_FLAGS = (
    "exec noexec suid nosuid dev nodev sync async atime noatime diratime nodiratime relatime norelatime "
    "strictatime nostrictatime mand nomand noswap"
)
TMPFS_VALUES = ("uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol")


def parse_volume(text: str) -> MountOption:
    """-v [SOURCE:]TARGET[:OPTIONS]: SOURCE is a host path (absolute, or ./relative) or a volume's name.

    Raises UsageError.
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise _bad("-v", text, "expected [SOURCE:]TARGET[:OPTIONS]", "such as -v /srv/data:/data:ro or -v cache:/cache")
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    fields: dict[str, Any] = {}
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option not in VOLUME_OPTIONS:
            raise _bad("-v", text, f"unknown option '{option}'", f"one of {' '.join(VOLUME_OPTIONS)}")
        fields |= VOLUME_OPTIONS[option]
    target = _target("-v", text, target)
    if source.startswith(("/", ".", "~")):
        return MountOption("bind", os.path.abspath(os.path.expanduser(source)), target, create_source=True, **fields)
    if source and not is_name(source):
        raise _bad("-v", text, f"'{source}' is no volume name", f"for a directory of the host write ./{source}")
    return MountOption("volume", source, target, **fields)


def parse_tmpfs(text: str) -> MountOption:
    """--tmpfs TARGET[:OPTIONS], with mount(8)'s options for tmpfs: size=64m,mode=1777,noexec. Raises UsageError."""
    target, _, options = text.partition(":")
    fields: dict[str, Any] = {}
    rest: list[str] = []
    for option in filter(None, options.split(",")):
        name, equals, value = option.partition("=")
        if name == "size" and equals:
            fields["tmpfs_size"] = _checked("--tmpfs", text, parse_size, value) if not value.endswith("%") else None
            rest += [option] if value.endswith("%") else []
        elif name == "mode" and equals:
            fields["tmpfs_mode"] = _checked("--tmpfs", text, _octal, value)
        elif option in ("ro", "rw"):
            fields["readonly"] = option == "ro"
        elif (name in TMPFS_VALUES and value) or option in TMPFS_FLAGS.split():
            rest.append(option)
        else:
            raise _bad("--tmpfs", text, f"unknown option '{option}'", "such as size=64m,mode=1777,noexec,uid=1000")
    return MountOption("tmpfs", "", _target("--tmpfs", text, target), tmpfs_options=tuple(rest), **fields)


def parse_mount(text: str) -> MountOption:
    """--mount type=bind,source=…,target=…,readonly: comma-separated (CSV quoting) key[=value]. Raises UsageError."""
    items = split_csv(text)
    asked = [item[5:] for item in items if item.startswith("type=")]  # wherever it stands
    fields: dict[str, Any] = {"type": asked[-1] if asked else "volume", "source": "", "target": ""}
    for item in items:
        key, equals, value = item.partition("=")
        if key not in MOUNT_KEYS:
            raise _unknown_key(text, key)
        field, parse, kind = MOUNT_KEYS[key]
        if parse is None:  # consistency=…, ignored
            continue
        if not equals and parse not in (_switch, _not_switch):
            raise _bad("--mount", text, f"'{key}' needs a value", f"write {key}=…")
        if kind and fields["type"] != kind:
            raise _bad("--mount", text, f"'{key}' is for type={kind}", f"this mount is type={fields['type']}")
        parsed = _checked("--mount", text, parse, value if equals else "true")
        fields[field] = (*fields.get(field, ()), parsed) if field in ("driver_opts", "labels") else parsed
    return _complete(text, fields)


def _complete(text: str, fields: dict[str, Any]) -> MountOption:
    kind, source = fields["type"], fields["source"]
    if kind not in ("bind", "volume", "tmpfs"):
        raise _bad("--mount", text, f"unknown type '{kind}'", "one of bind, volume, tmpfs")
    fields["target"] = _target("--mount", text, fields["target"])
    if kind == "bind":
        if not source:
            raise _bad("--mount", text, "type=bind needs source=", "name a file or directory of the host")
        if not source.startswith(("/", "./", "../", "~/")) and source not in (".", ".."):
            raise _bad("--mount", text, f"source '{source}' is not absolute", f"write source=./{source}")
        fields["source"] = os.path.abspath(os.path.expanduser(source))
    elif kind == "tmpfs" and source:
        raise _bad("--mount", text, "type=tmpfs takes no source", "leave source= out")
    elif kind == "volume" and source and not is_name(source):
        raise _bad("--mount", text, f"'{source}' is no volume name", "for a directory of the host use type=bind")
    if fields.get("recursive") == "readonly" and not (fields.get("readonly") and "propagation" in fields):
        if not fields.get("readonly"):
            raise _bad("--mount", text, "bind-recursive=readonly needs readonly", "add ,readonly")
        fields["propagation"] = "rprivate"  # the kernel cannot make a mount recursively read-only and have it propagate
    return MountOption(**fields)


def split_csv(text: str) -> list[str]:
    """The fields of one CSV line: a field may be quoted as "…" to hold commas, and "" is a quote in it."""
    fields, field, quoted, at = [], "", False, 0
    while at < len(text):
        char = text[at]
        if quoted and char == '"' and text[at + 1 : at + 2] == '"':
            field += '"'
            at += 1
        elif char == '"' and (quoted or not field):
            quoted = not quoted
        elif char == "," and not quoted:
            fields.append(field)
            field = ""
        else:
            field += char
        at += 1
    return [*fields, field]


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError("it is true or false")
    return text.lower() in ("true", "1")


def _not_switch(text: str) -> str:
    return "disabled" if _switch(text) else "enabled"


def _octal(text: str) -> int:
    if not text or len(text) > 5 or not set(text) <= set("01234567"):
        raise ValueError(f"'{text}' is no octal mode such as 1777")
    return int(text, 8)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"'{text}' is not one of {', '.join(allowed)}")
        return text

    return parse


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _subpath(text: str) -> str:
    if not text or text.startswith("/") or ".." in text.split("/"):
        raise ValueError(f"'{text}' is not a relative path inside the volume")
    return os.path.normpath(text)


# key of --mount -> (field, parser of the value, the type it is for; "" is any)
MOUNT_KEYS: dict[str, tuple[str, Callable[[str], Any] | None, str]] = {
    "type": ("type", str, ""),
    **dict.fromkeys(("source", "src"), ("source", str, "")),
    **dict.fromkeys(("target", "dst", "destination"), ("target", str, "")),
    **dict.fromkeys(("readonly", "ro"), ("readonly", _switch, "")),
    "consistency": ("", None, ""),
    "bind-propagation": ("propagation", _one_of(*PROPAGATION), "bind"),
    "bind-recursive": ("recursive", _one_of(*RECURSIVE), "bind"),
    "bind-nonrecursive": ("recursive", _not_switch, "bind"),
    "bind-create-src": ("create_source", _switch, "bind"),
    "volume-nocopy": ("nocopy", _switch, "volume"),
    "volume-driver": ("driver", str, "volume"),
    "volume-opt": ("driver_opts", _pair, "volume"),
    "volume-label": ("labels", _pair, "volume"),
    "volume-subpath": ("subpath", _subpath, "volume"),
    "tmpfs-size": ("tmpfs_size", parse_size, "tmpfs"),
    "tmpfs-mode": ("tmpfs_mode", _octal, "tmpfs"),
}


def _target(flag: str, text: str, target: str) -> str:
    if not target:
        raise _bad(flag, text, "no target", "name an absolute path in the container")
    if not target.startswith("/"):
        raise _bad(flag, text, f"target '{target}' is not absolute", "a path in the container begins with /")
    normal = "/" + os.path.normpath(target).strip("/")
    if normal == "/":
        raise _bad(flag, text, "the target cannot be /", "mount onto a directory below it")
    return normal


def _checked(flag: str, text: str, parse: Callable[[str], Any], value: str) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise _bad(flag, text, str(error), "") from None


def _unknown_key(text: str, key: str) -> UsageError:
    from pyrun.runtime.oci.nearest import did_you_mean

    hint = did_you_mean(key, MOUNT_KEYS) or "such as type=bind,source=/srv,target=/srv,readonly"
    return _bad("--mount", text, f"unknown key '{key}'", hint)


def _bad(flag: str, text: str, why: str, hint: str) -> UsageError:
    return UsageError(f"{flag} {text}", why, hint=hint)
