# SPDX-License-Identifier: Apache-2.0
"""The files behind config.Registries: pyrun's registries.toml, and podman's registries.conf (version 2).

    certs-dirs = ["/srv/certs.d"]                # besides the usual ones

    [aliases]
    flask = "registry.example/python/flask"      # what a name without a registry stands for

    [registry."docker.io"]                       # a registry, a part of one ("quay.io/team"), or "*.example.com"
    mirrors = ["mirror.example:5000", "http://10.0.0.5/hub"]     # asked first, for pulls; http:// is plain HTTP
    location = "other.example/hub"               # where it really is
    insecure = true                              # certificates are not verified, and plain HTTP is tried too
    blocked = true                               # nothing is pulled from it or pushed to it
    ca = ["ca.pem"]                              # trusted besides the system's authorities
    client-cert = "me.cert"
    client-key = "me.key"

Relative file names count from the file's directory. In pyrun's own files a key that there is not is an error; in
podman's it is podman's business.
"""

from __future__ import annotations

import os

from pyrun.rootfs.registry.config import Entry, Mirror, config_home
from pyrun.runtime.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

SYSTEM_FILE = "/etc/pyrun/registries.toml"
PODMAN_DIRS = ("/etc/containers", "/usr/share/containers")

TOP_KEYS = ("certs-dirs", "aliases", "registry")
REGISTRY_KEYS = ("mirrors", "location", "insecure", "blocked", "ca", "client-cert", "client-key")
MIRROR_KEYS = ("location", "insecure", "only")
ONLY = {"all": "", "digest-only": "digest", "tag-only": "tag"}  # podman's pull-from-mirror


class Found:
    """What has been read so far; a later file's entry replaces an earlier one of the same prefix."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.aliases: dict[str, str] = {}
        self.certs_dirs: list[str] = []


class Table:
    """A table of a file, with what an error in it needs to say: the file, its text, and where the table is in it."""

    def __init__(
        self, path: str, text: str, values: dict[str, Any], keys: tuple[str, ...] = (), start: int = 0
    ) -> None:
        self.path = path
        self.text = text
        self.values = values
        self.keys = keys
        self.start = start

    def error(self, key: str, why: str, hint: str = "") -> PyrunError:
        """An error about one key, as file, line and key."""
        line = line_of(self.text, (*self.keys, key), self.start)
        return PyrunError(f"{self.path}:{line}: {key}" if line else f"{self.path}: {key}", why, hint=hint)

    def known(self, keys: Sequence[str]) -> None:
        """Raises PyrunError, with the nearest known one, for a key that is not in `keys`."""
        for key in self.values:
            if key not in keys:
                import difflib  # only a mistake pays for it

                near = difflib.get_close_matches(key, keys, 1, 0.6)
                raise self.error(
                    key, "no such key", f"did you mean '{near[0]}'?" if near else f"one of {', '.join(keys)}"
                )

    def text_of(self, key: str) -> str:
        """A string, "" when it is not there."""
        value = self.values.get(key, "")
        if not isinstance(value, str):
            raise self.error(key, "must be a string")
        return value

    def switch(self, key: str) -> bool | None:
        """true, false, or None when it is not there."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings, [] when it is not there."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, "must be a list of strings")
        return value

    def table(self, key: str) -> Table:
        """A table inside this one, empty when it is not there."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "must be a table", f"write [{key}]" if not self.keys else "")
        return Table(self.path, self.text, value, (*self.keys, key), self.start)

    def tables(self, key: str) -> list[Table]:
        """An array of tables, [] when it is not there."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(key, "must be an array of tables", f"write [[{'.'.join((*self.keys, key))}]]")
        found: list[Table] = []
        keys, start = (*self.keys, key), self.start
        for item in value:
            start = line_of(self.text, keys, start + bool(found))
            found.append(Table(self.path, self.text, item, keys, start))
        return found

    def file(self, name: str) -> str:
        """A file's name made absolute."""
        return os.path.join(os.path.dirname(self.path), os.path.expanduser(name))


def read_all() -> Found:
    """Everything that this user's files say. Raises PyrunError."""
    found = Found()
    named = os.environ.get("PYRUN_REGISTRIES")
    podman = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    if podman or not named:
        for path in [podman] if podman else podman_files():
            _read(found, path, _podman, needed=path == podman)
    if named:
        _read(found, os.path.abspath(named), _own, needed=True)
        return found
    own = [SYSTEM_FILE]
    if os.geteuid() != 0:
        own.append(f"{config_home()}/pyrun/registries.toml")
    for path in own:
        _read(found, path, _own)
    return found


def podman_files() -> list[str]:
    """podman's files, in the order in which they count: registries.conf, then registries.conf.d (a user's last)."""
    user = () if os.geteuid() == 0 else (f"{config_home()}/containers",)
    found = [f"{place}/registries.conf" for place in (*user, *PODMAN_DIRS)]
    files = [path for path in found if os.path.isfile(path)][:1]  # a user's stands for the system's
    for place in (*PODMAN_DIRS[:1], *user):
        try:
            names = sorted(os.listdir(f"{place}/registries.conf.d"))
        except OSError:
            continue
        files += [f"{place}/registries.conf.d/{name}" for name in names if name.endswith(".conf")]
    return files


def line_of(text: str, keys: tuple[str, ...], start: int = 0) -> int:
    """The line, from 1, where the last of `keys` is set, or else the innermost thing around it; 0 if there is neither.

    start: a line before which nothing counts, for the later tables of an array.
    """
    here: tuple[str, ...] = ()
    around, depth = 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("["):
            found = here = _path(line)
        elif "=" in line:
            found = (*here, *_path(f"{line.partition('=')[0]} = 0"))
        else:
            continue
        if number < start or not found:
            continue
        if found == keys:
            return number
        if found == keys[: len(found)] and len(found) > depth:
            around, depth = number, len(found)
    return around


def _path(line: str) -> tuple[str, ...]:
    """The keys that one line of TOML, a header or an assignment, leads to."""
    import tomllib

    try:
        value: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    found: list[str] = []
    while isinstance(value, (dict, list)) and value:
        if isinstance(value, dict):
            found.append(next(iter(value)))
            value = value[found[-1]]
        else:
            value = value[0]
    return tuple(found)


def _read(found: Found, path: str, take: Any, *, needed: bool = False) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        if needed:
            raise PyrunError(
                path, "no such file", hint="PYRUN_REGISTRIES and CONTAINERS_REGISTRIES_CONF name files"
            ) from None
        return
    except OSError as error:
        raise PyrunError(path, (error.strerror or "").lower()) from None
    except UnicodeDecodeError:
        raise PyrunError(path, "it is not UTF-8") from None
    import tomllib  # 6 ms: only where there is a file

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(path, str(error)) from None
    take(found, Table(path, text, values))


def _syntax(path: str, message: str) -> PyrunError:
    """tomllib's "Expected … (at line 3, column 5)" as file:line:column."""
    why, at, place = message.rpartition(" (at ")
    if not at:
        return PyrunError(path, message[:1].lower() + message[1:])
    words = place.rstrip(")").replace(",", "").split()
    where = f":{words[1]}:{words[3]}" if len(words) == 4 else ""  # else "end of document"
    return PyrunError(f"{path}{where}", why[:1].lower() + why[1:] + ("" if where else " at the end of the file"))


# ---- pyrun's own -----------------------------------------------------------------------------------------------------


def _own(found: Found, top: Table) -> None:
    top.known(TOP_KEYS)
    found.certs_dirs += [top.file(name) for name in top.texts("certs-dirs")]
    _aliases(found, top.table("aliases"))
    registries = top.table("registry")
    for prefix in registries.values:
        table = registries.table(prefix)
        table.known(REGISTRY_KEYS)
        if not _is_place(prefix.removeprefix("*.")):
            raise registries.error(prefix, "not a registry", 'such as "docker.io", "localhost:5000" or "quay.io/team"')
        client = [table.text_of(key) for key in ("client-cert", "client-key")]
        if any(client) and not all(client):
            raise table.error("client-cert" if client[0] else "client-key", "needs client-cert and client-key")
        found.entries[prefix] = Entry(
            prefix,
            top.path,
            _place(table, "location"),
            tuple(_own_mirrors(table)),
            table.switch("insecure"),
            bool(table.switch("blocked")),
            tuple(_files(table, table.texts("ca"), "ca")),
            (tuple(_files(table, client, "client-cert")),) if all(client) else (),  # type: ignore[arg-type]
        )


def _own_mirrors(table: Table) -> Iterable[Mirror]:
    values = table.values.get("mirrors", [])
    if not isinstance(values, list):
        raise table.error("mirrors", "must be a list", 'such as mirrors = ["mirror.example:5000"]')
    for value in values:
        if isinstance(value, str):
            yield _mirror(table, "mirrors", value)
        elif isinstance(value, dict):
            inner = Table(table.path, table.text, value, (*table.keys, "mirrors"))
            inner.known(MIRROR_KEYS)
            only = inner.text_of("only")
            if only not in ("", "digest", "tag"):
                raise inner.error("only", f"unknown word '{only}'", "digest or tag")
            mirror = _mirror(inner, "location", inner.text_of("location"))
            yield mirror.replace(insecure=inner.switch("insecure"), only=only)
        else:
            raise table.error("mirrors", "must be strings or tables")


def _mirror(table: Table, key: str, text: str) -> Mirror:
    scheme, found, place = text.partition("://")
    if not found:
        scheme, place = "", text
    place = place.rstrip("/")
    if scheme not in ("", "http", "https") or not _is_place(place):
        raise table.error(key, f"not a mirror: '{text}'", "host[:port][/path], with http:// in front for plain HTTP")
    return Mirror(place, plain=scheme == "http", insecure=False if scheme == "https" else None)


def _files(table: Table, names: Iterable[str], key: str) -> Iterable[str]:
    for name in names:
        path = table.file(name)
        if not os.path.isfile(path):
            raise table.error(key, f"no such file: {path}")
        yield path


# ---- podman's --------------------------------------------------------------------------------------------------------


def _podman(found: Found, top: Table) -> None:
    """[[registry]] with prefix, location, insecure, blocked and [[registry.mirror]]; [aliases]."""
    _aliases(found, top.table("aliases"))
    if not isinstance(top.values.get("registry", []), list):
        return  # version 1, which podman itself does not read any more
    for table in top.tables("registry"):
        location = _place(table, "location")
        prefix = table.text_of("prefix") or location
        if not prefix:
            raise table.error("location", "it is missing")
        by_digest = bool(table.switch("mirror-by-digest-only"))
        mirrors = []
        for mirror in table.tables("mirror"):
            pull = mirror.text_of("pull-from-mirror") or "all"
            if pull not in ONLY:
                raise mirror.error("pull-from-mirror", f"unknown word '{pull}'", ", ".join(ONLY))
            place = _place(mirror, "location")
            if not place:
                raise mirror.error("location", "it is missing")
            only = "digest" if by_digest else ONLY[pull]
            mirrors.append(Mirror(place, bool(mirror.switch("insecure")), only=only))
        found.entries[prefix] = Entry(
            prefix,
            top.path,
            location if location != prefix else "",
            tuple(mirrors),
            # false is podman's default: said or not, it must not take docker's rule for loopback addresses away
            table.switch("insecure") or None,
            bool(table.switch("blocked")),
        )


def _aliases(found: Found, table: Table) -> None:
    for name in table.values:
        full = table.text_of(name)
        if full and not ("/" in full and _is_place(full) and "@" not in full):
            hint = "name a registry and a repository, such as docker.io/library/python"
            raise table.error(name, f"'{full}' is not a full name", hint)
        found.aliases[name] = full


def _place(table: Table, key: str) -> str:
    text = table.text_of(key)
    if text and not _is_place(text):
        raise table.error(key, f"not a registry: '{text}'", "host[:port][/path]")
    return text.rstrip("/")


def _is_place(text: str) -> bool:
    """Whether `text` can be host[:port][/path]."""
    host = text.partition("/")[0]
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    port = host.rpartition("]")[2].partition(":")[2]
    return (
        bool(name)
        and text.isascii()
        and text.isprintable()
        and not set(text) & set(" \\?#@\"'")
        and (not port or port.isdecimal())
    )
