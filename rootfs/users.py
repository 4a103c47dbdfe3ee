# SPDX-License-Identifier: Apache-2.0
"""Who `-u` and `--group-add` mean, by the /etc/passwd and /etc/group of the container: text the image's author wrote.

Rules as docker's (user.GetExecUser), but strict where others went wrong: a number is ASCII digits from 0 to 2**32-2 and
never falls through to a name (CVE-2024-40635, CVE-2026-46680); a line with a bad number is no line (others read it as
0).
"""

from __future__ import annotations

import errno
import os

from pyrun.runtime.errors import NotFound, SpecError, UsageError
from pyrun.runtime.record import Record

from . import inroot, layered
from .entry import MAX_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_FILE = 4 << 20  # bytes of /etc/passwd or /etc/group: 50,000 users take 3 MiB; a huge one is CVE-2026-47262
MAX_GROUPS = 65536  # NGROUPS_MAX, setgroups(2)


class User(Record):
    """The ids a process gets; home is "/" for a uid that /etc/passwd does not know, name is "" then."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    home: str = "/"
    name: str = ""


def of_layers(directories: Sequence[str], user: str, group_add: Sequence[str] = ()) -> User:
    """The User in a container that is not running; `directories`: upper, then lowers, topmost first."""
    with layered.Stack(directories) as stack:
        return _resolve_in(lambda path: stack.read(tuple(path.encode().split(b"/")), MAX_FILE), user, group_add)


def of_root(root_fd: int, user: str, group_add: Sequence[str] = ()) -> User:
    """The User in a running container (`exec -u`); `root_fd` is its root directory. As resolve()."""
    return _resolve_in(lambda path: inroot.read_file(root_fd, path, MAX_FILE), user, group_add)


def _resolve_in(read: Callable[[str], bytes], user: str, group_add: Sequence[str]) -> User:
    def text(path: str) -> bytes:
        try:
            return read(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return b""  # images from scratch have neither file
            why = f"larger than {MAX_FILE} bytes" if error.errno == errno.EFBIG else "not a regular file"
            if error.errno not in (errno.EFBIG, errno.EINVAL):
                why = os.strerror(error.errno or 0).lower()
            raise SpecError(f"{path} of the container", why, hint="the image is broken, or wants to do harm") from None

    return resolve(user, text("/etc/passwd"), text("/etc/group"), group_add)


def resolve(user: str, passwd: bytes, group: bytes, group_add: Sequence[str] = ()) -> User:
    """The ids that `user` ("", "1000", "1000:1000", "name", "name:group", "1000:group", ":group") and --group-add mean.

    Args:
        user: as `-u` or the image's USER says; "" is root, before a colon too, as in docker.
        passwd, group: the content of the two files; b"" when there are none.
        group_add: group names or numbers.

    A group given with the user replaces its groups of /etc/group; without one the user gets them all, as with login.
    Raises UsageError for a number out of range or a malformed value, NotFound for an unknown name.
    """
    who, colon, which = user.partition(":")
    if colon and (":" in which or not which):
        raise UsageError(f"invalid user '{user}'", "write USER, UID, USER:GROUP or UID:GID")
    wanted = number(who, "user id") if who else 0
    account = _account(who, wanted, passwd)
    if account is None and wanted is None:
        raise NotFound(
            f"no user '{who}'", "the container's /etc/passwd does not have it", hint="give its number, such as 1000"
        )
    uid, gid, home, name = account or (wanted or 0, 0, "/", "")
    groups = list(_groups(group))
    additional: list[int] = []
    if which:
        gid = _group_id(which, groups)
    elif name:
        additional = [found for _, found, members in groups if name in members]
    additional += [_group_id(text, groups) for text in group_add]
    unique = tuple(dict.fromkeys(additional))
    if len(unique) > MAX_GROUPS:
        raise UsageError(f"user '{user}'", f"is in more than {MAX_GROUPS} groups")
    return User(uid, gid, unique, home, name)


def number(text: str, what: str) -> int | None:
    """The id in `text`; None if it is not made of digits alone. Raises UsageError when it is, but out of range.

    What begins like a number (a sign, a digit followed by anything) is neither a number nor a name anybody has.
    """
    if text.isascii() and text.isdigit():
        if len(text) > 10 or int(text) > MAX_ID:
            raise UsageError(f"invalid {what} '{text}'", f"it must be from 0 to {MAX_ID}")
        return int(text)
    if text[0] in "+-" or text[0].isspace() or not text.isprintable() or text.isnumeric():
        raise UsageError(f"invalid {what} '{text}'", "write a name, or digits alone")
    return None


def _account(who: str, wanted: int | None, passwd: bytes) -> tuple[int, int, str, str] | None:
    """(uid, gid, home, name) of the first line that fits: by number if one was given (root for ""), else by name."""
    for fields in _lines(passwd, 6):
        uid, gid = _line_number(fields[2]), _line_number(fields[3])
        if uid is None or gid is None:
            continue
        if uid == wanted if wanted is not None else fields[0] == who:
            return uid, gid, fields[5] if fields[5].startswith("/") else "/", fields[0]
    return None


def _groups(group: bytes) -> Iterator[tuple[str, int, frozenset[str]]]:
    """(name, gid, members) of every well-formed line."""
    for fields in _lines(group, 3):
        gid = _line_number(fields[2])
        if gid is not None:
            members = fields[3].split(",") if len(fields) > 3 else []
            yield fields[0], gid, frozenset(name.strip() for name in members)


def _group_id(text: str, groups: list[tuple[str, int, frozenset[str]]]) -> int:
    if not text:
        raise UsageError("invalid group ''", "it is empty")
    wanted = number(text, "group id")
    if wanted is not None:
        return wanted
    for name, gid, _ in groups:
        if name == text:
            return gid
    raise NotFound(f"no group '{text}'", "the container's /etc/group does not have it", hint="give its number")


def _lines(text: bytes, least: int) -> Iterator[list[str]]:
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= least and fields[0] and not fields[0].startswith("#"):
            yield fields


def _line_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID else None
