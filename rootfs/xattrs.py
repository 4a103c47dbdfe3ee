# SPDX-License-Identifier: Apache-2.0
"""Extended attributes: which ones an image may carry, and setting and reading them without following anything."""

from __future__ import annotations

import errno
import os

from .entry import SYMLINK, Entry

# First match decides. Refused ones steer overlayfs itself (redirect, metacopy, opaque): an image that sets them maps
# files that are not its own. Skipped ones are this host's policy (SELinux labels, IMA), not the image's content.
RULES = (
    (b"security.capability", "set"),
    (b"security.", "skip"),
    (b"system.posix_acl_", "set"),
    (b"system.", "skip"),
    (b"user.overlay.", "refuse"),
    (b"user.", "set"),
    (b"trusted.", "refuse"),
    (b"", "skip"),
)


def rule(name: bytes) -> str:
    """ "set", "skip" or "refuse" for an attribute that an archive asks for."""
    return next(what for prefix, what in RULES if name.startswith(prefix))


def wanted(entry: Entry) -> list[tuple[bytes, bytes]]:
    """The attributes of an archive's entry that are to be set. Raises ArchiveError for one that must not be there."""
    found = []
    for name, value in (entry.xattrs or {}).items():
        what = rule(name)
        if what == "refuse":
            raise entry.error(f"carries the attribute {name.decode(errors='replace')}, which belongs to overlayfs")
        if what == "set" and b"\0" not in name and not (entry.kind is SYMLINK and name.startswith(b"user.")):
            found.append((name, value))  # user.* on symlinks does not exist, xattr(7)
    return found


def put(target: int | bytes, entry: Entry) -> None:
    """Sets them on an open fd or on a path that is not followed at its end; a file system without any is no error."""
    for name, value in wanted(entry):
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise


def get(target: int | bytes, *, follow: bool = False) -> dict[bytes, bytes] | None:
    """The attributes worth carrying along (rule "set") of an open fd or a path; None for none.

    `follow` for a path of the form /proc/self/fd/N, which stands for an O_PATH fd.
    """
    follow = follow or isinstance(target, int)
    found = {}
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA, errno.EPERM):
            return None
        raise
    for text in names:
        name = os.fsencode(text)
        if rule(name) == "set":
            try:
                found[name] = os.getxattr(target, name, follow_symlinks=follow)
            except OSError as error:  # removed in between
                if error.errno != errno.ENODATA:
                    raise
    return found or None
