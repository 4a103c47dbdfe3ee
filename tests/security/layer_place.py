# SPDX-License-Identifier: Apache-2.0
"""A layer's directory with something precious beside it, and the entries that hostile layers are made of."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

import tars
from pyrun.rootfs import unpack as unpacking
from pyrun.rootfs.limits import ArchiveError, Limits

Member = tuple[tarfile.TarInfo, bytes]


class Place:
    """A layer's directory with something precious beside it."""

    def __init__(self, base: Path) -> None:
        self.outside = base / "outside"
        self.outside.mkdir()
        (self.outside / "precious").write_text("untouched")
        self.fs = base / "layer" / "fs"
        self.fs.mkdir(parents=True)

    def unpack(self, *members: Member, limits: Limits | None = None, **options: Any) -> unpacking.Unpacked:
        return self.unpack_bytes(tars.tar(*members), limits, **options)

    def unpack_bytes(self, data: bytes, limits: Limits | None = None, **options: Any) -> unpacking.Unpacked:
        fd = unpacking.open_root(str(self.fs))
        try:
            return unpacking.unpack(io.BytesIO(data), fd, limits=limits or Limits(), **options)
        finally:
            os.close(fd)

    def attempt(self, *members: Member) -> str:
        """The error's text, "" if the archive was taken."""
        try:
            self.unpack(*members)
        except ArchiveError as error:
            return str(error)
        return ""

    def refuse(self, *members: Member, why: str, **options: Any) -> ArchiveError:
        with pytest.raises(ArchiveError, match=why) as caught:
            self.unpack(*members, **options)
        return caught.value

    def check(self) -> None:
        assert sorted(os.listdir(self.outside)) == ["precious"]
        assert (self.outside / "precious").read_text() == "untouched"
        assert os.listdir(self.fs.parent) == ["fs"]
        assert os.stat(self.outside / "precious").st_nlink == 1


def link(name: str, target: str) -> Member:
    return tars.member(name, "symlink", linkname=target)


def hard(name: str, target: str) -> Member:
    return tars.member(name, "hardlink", linkname=target)


def write(name: str, data: bytes = b"new", **fields: Any) -> Member:
    return tars.member(name, data=data, **fields)
