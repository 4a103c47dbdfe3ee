# SPDX-License-Identifier: Apache-2.0
"""The bytes of one file into another, by the cheapest way the file systems offer.

A reflink shares the blocks (XFS, btrfs: FICLONE, ioctl_ficlonerange(2)); copy_file_range(2) and sendfile(2) copy
without passing through this process; small files are read and written, which is fewest system calls. Holes of sparse
files stay holes.
"""

from __future__ import annotations

import errno
import fcntl
import os

_SMALL = 1 << 16
_CHUNK = 1 << 20
_STEP = 1 << 30
_FICLONE = 0x40049409
# what says "not between these two file systems", as opposed to a failure of the disk
_OTHER_WAY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY, errno.ENOTTY}
_NO_CLONE: set[tuple[int, int]] = set()  # (device, device) where a reflink was refused


def transfer(source: int, target: int, info: os.stat_result) -> int:
    """Copies the open file `source` (whose fstat is `info`) to the empty `target`; how many bytes that file now has.

    Raises OSError.
    """
    size = info.st_size
    if size <= _SMALL:
        data = os.read(source, _SMALL + 1)
        if len(data) <= _SMALL:
            _write(target, data)
            return len(data)
        os.lseek(source, 0, os.SEEK_SET)
    if _cloned(source, target, info):
        return os.fstat(target).st_size
    if info.st_blocks * 512 < size:
        return _sparse(source, target, size)
    return _dense(source, target, 0, None)


def _write(target: int, data: bytes) -> None:
    done = os.write(target, data)
    while done < len(data):
        done += os.write(target, data[done:])


def _cloned(source: int, target: int, info: os.stat_result) -> bool:
    pair = (info.st_dev, os.fstat(target).st_dev)
    if pair in _NO_CLONE:
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _OTHER_WAY:
            raise
        _NO_CLONE.add(pair)
        return False
    return True


def _sparse(source: int, target: int, size: int) -> int:
    """Data regions only; the file gets its size first, so that a hole at its end is one as well."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                break
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        _dense(source, target, start, end - start)
        at = end
    return size


def _dense(source: int, target: int, start: int, length: int | None) -> int:
    """Copies from `start` to the same place, `length` bytes or to the end; where that was."""
    os.lseek(source, start, os.SEEK_SET)
    os.lseek(target, start, os.SEEK_SET)
    done = 0
    way = _WAYS[0]
    while length is None or done < length:
        wanted = _STEP if length is None else min(_STEP, length - done)
        try:
            count = way(source, target, wanted)
        except OSError as error:
            later = _WAYS[_WAYS.index(way) + 1 :]
            if error.errno not in _OTHER_WAY or not later:
                raise
            way = later[0]
            continue
        if count == 0:
            break
        done += count
    return start + done


def _by_range(source: int, target: int, count: int) -> int:
    return os.copy_file_range(source, target, count)


def _by_sendfile(source: int, target: int, count: int) -> int:
    return os.sendfile(target, source, None, count)


def _by_hand(source: int, target: int, count: int) -> int:
    data = os.read(source, min(count, _CHUNK))
    _write(target, data)
    return len(data)


_WAYS = (_by_range, _by_sendfile, _by_hand)
