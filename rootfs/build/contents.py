# SPDX-License-Identifier: Apache-2.0
"""The content key of a copy: everything that ends up in the layer, but for times.

Files whose digest is remembered (hashes.py) are not opened. Of the others, small ones are read one after another, and
big ones by threads: SHA-256 gives the interpreter lock back from 2 KiB on.
"""

from __future__ import annotations

import hashlib
import os
import stat

from pyrun.rootfs import xattrs

from . import scan
from .hashes import now_ns
from .source import Directory, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .copy import CopyPlan
    from .scan import Folder, Item

_BIG = 1 << 20
_CHUNK = 1 << 18
_KINDS = {stat.S_IFIFO: b"p", stat.S_IFCHR: b"c", stat.S_IFBLK: b"b"}


def digest(plan: CopyPlan) -> str:
    """ "sha256:…" over the plan, see CopyPlan.digest()."""
    _fill(plan)
    lines: list[bytes] = [b"pyrun-copy-1 %o %d:%d" % (plan.plain_mode, *plan.plain_owner)]
    for folder in plan.folders:
        lines.append(_folder(plan, folder))
        for item in folder.files:
            info = item.stat
            if item.digest is not None and not folder.unpack and not item.same:  # nearly every line is this one
                name = item.to
                lines.append(
                    b"f %d %s %o %d:%d %s" % (len(name), name, plan.mode(info), *plan.owner(info), item.digest)
                )
            else:
                lines.append(_item(plan, folder, item))
    # every field that can hold any byte is preceded by its length, so that no two plans give the same text
    return "sha256:" + hashlib.sha256(b"\n".join(lines)).hexdigest()


def _folder(plan: CopyPlan, folder: Folder) -> bytes:
    path = b"/".join(folder.place)
    kind = b"a" if folder.unpack else b"."
    if folder.stat is None:
        return b"%s %d %s" % (kind, len(path), path)
    attributes = _attributes(folder.attributes)
    return b"d %d %s %o %d:%d %s" % (len(path), path, plan.mode(folder.stat), *plan.owner(folder.stat), attributes)


def _item(plan: CopyPlan, folder: Folder, item: Item) -> bytes:
    """What is no regular file, or not as one: an archive, a hard link."""
    info = item.stat
    if folder.unpack:  # owners and modes come from the archive
        owner = b"%d:%d" % plan.request.owner if plan.request.owner else b""
        return b"a %s %s" % (owner, item.digest)
    uid, gid = plan.owner(info)
    name = b"%d %s" % (len(item.to), item.to)
    if item.same:
        return b"h %s %d %s" % (name, len(item.same), item.same)
    if stat.S_ISLNK(info.st_mode):
        return b"l %s %d:%d %d %s" % (name, uid, gid, len(item.link), item.link)
    kind = _KINDS[stat.S_IFMT(info.st_mode)]
    return b"%s %s %o %d:%d %d" % (kind, name, plan.mode(info), uid, gid, info.st_rdev)


def _attributes(found: dict[bytes, bytes] | None) -> bytes:
    """The attributes that are copied, as bytes; b"" for none, which is nearly always."""
    if not found:
        return b""
    return b"".join(b"%d %s %d %s " % (len(name), name, len(found[name]), found[name]) for name in sorted(found))


def _opened(tree: Tree, folder: Folder) -> Directory:
    try:
        return tree.open(folder.source)
    except OSError as error:
        raise scan.cannot_read(tree, folder.source, error) from error


# Digests of files -----------------------------------------------------------------------------------------------------


def _fill(plan: CopyPlan) -> None:
    """Gives every regular file its digest."""
    tree = plan.tree
    hashes = tree.hashes
    big: list[tuple[Folder, Item]] = []
    for folder in plan.folders:
        unknown = []
        for item in folder.files:
            if item.digest is None and stat.S_ISREG(item.stat.st_mode) and not item.same:
                item.digest = hashes.get(item.stat) if hashes is not None else None
                if item.digest is None:
                    unknown.append(item)
        small = [item for item in unknown if item.stat.st_size < _BIG]
        big += [(folder, item) for item in unknown if item.stat.st_size >= _BIG]
        if small:
            with _opened(tree, folder) as directory:
                for item in small:
                    _read(tree, folder, directory, item)
    _in_threads(tree, big)


def _in_threads(tree: Tree, jobs: list[tuple[Folder, Item]]) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        while jobs and not failures:
            try:
                folder, item = jobs.pop()
            except IndexError:
                return
            try:
                with _opened(tree, folder) as directory:
                    _read(tree, folder, directory, item)
            except BaseException as error:  # it is raised in the caller's thread
                failures.append(error)

    count = min(len(jobs), os.cpu_count() or 1)
    if count > 1:
        import threading

        threads = [threading.Thread(target=work, name="hash", daemon=True) for _ in range(count - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
    else:
        work()
    if failures:
        raise failures[0]


def _read(tree: Tree, folder: Folder, directory: Directory, item: Item) -> None:
    """The digest of one file, which may be written to meanwhile: then it is read again, a few times."""
    try:
        fd = directory.open_file(item.name, item.layer)
        try:
            for _ in range(3):
                began = now_ns()
                before = os.fstat(fd)
                item.digest = of_file(fd)
                item.stat = os.fstat(fd)
                if same_state(before, item.stat):
                    if tree.hashes is not None:
                        tree.hashes.put(before, item.digest, began)
                    return
                os.lseek(fd, 0, os.SEEK_SET)
        finally:
            os.close(fd)
    except OSError as error:
        raise scan.cannot_read(tree, (*folder.source, item.name), error) from error


def of_file(fd: int) -> bytes:
    """SHA-256 of what an open file holds from where it stands, and of its attributes if it has some."""
    content = hashlib.sha256()
    while chunk := os.read(fd, _CHUNK):
        content.update(chunk)
    attributes = _attributes(xattrs.get(fd))
    return hashlib.sha256(content.digest() + attributes).digest() if attributes else content.digest()


def same_state(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether a file was not written to, nor replaced, between the two."""
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_dev, other.st_ino, other.st_size, other.st_mtime_ns, other.st_ctime_ns
    )  # fmt: skip
