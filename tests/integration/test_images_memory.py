# SPDX-License-Identifier: Apache-2.0
"""Memory: a layer of a gigabyte is unpacked in less than 100 MB, however it is compressed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from isal import igzip

from requires import requires

pytestmark = requires(root=True)

MIB = 1 << 20
BLOCK = os.urandom(MIB // 4) + bytes(MIB // 4) + b"text " * (MIB // 10)


class Repeated(io.RawIOBase):
    """A file of so many bytes that needs none of them in memory."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = min(size, self.left, len(BLOCK))
        self.left -= size
        return BLOCK[:size]


def write_layer(path: Path, kind: str) -> None:
    """A gigabyte in nine large files and a thousand small ones."""
    with open(path, "wb") as file:
        out: Any = file
        if kind == "gzip":
            opened: Any = igzip.open  # has no types
            out = opened(file, "wb", 0)
        elif kind == "zstd":
            out = zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False)
        with tarfile.open(fileobj=out, mode="w|") as archive:
            for number in range(9):
                info = tarfile.TarInfo(f"big{number}")
                info.size = 110 * MIB
                archive.addfile(info, Repeated(info.size))
            for number in range(1000):
                info = tarfile.TarInfo(f"d/small{number}")
                info.size = 50_000
                archive.addfile(info, Repeated(info.size))
        if out is not file:
            out.close()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for path in tmp_path.rglob("big*"):
        path.unlink()


@pytest.mark.parametrize("kind", ["gzip", "zstd", "plain"])
def test_a_layer_of_a_gigabyte(directory: Path, kind: str) -> None:
    """The child's peak, interpreter and libraries included (VmHWM of proc(5); ru_maxrss would count its parent's)."""
    write_layer(directory / "big.layer", kind)
    (directory / "fs").mkdir()
    code = (
        "import sys\nfrom pyrun.rootfs import unpack\n"
        "with open(sys.argv[1], 'rb') as blob: found = unpack.unpack(blob, unpack.open_root(sys.argv[2]))\n"
        "with open('/proc/self/status') as file: peak = [l for l in file if l.startswith('VmHWM')][0]\n"
        "print(found.size, peak.split()[1])\n"
    )
    argv = [sys.executable, "-c", code, str(directory / "big.layer"), str(directory / "fs")]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    size, kilobytes = map(int, said)
    assert size == 9 * 110 * MIB + 1000 * 50_000
    assert kilobytes < 60_000, "far below 100 MB, so that the rest of a pull has room"
