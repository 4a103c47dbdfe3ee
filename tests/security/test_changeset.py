# SPDX-License-Identifier: Apache-2.0
"""commit, diff and export of a container that fights back: what it swaps while it is read leads nowhere.

CVE-2018-15664 (docker cp) and its relatives: a name is looked at, and is something else when it is opened.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrun.rootfs import changeset, tarwrite
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.limits import ArchiveError
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.paths import Paths
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = requires(root=True)
SECRET = b"the host's secret"
SWAPS = 600


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Paths(data=str(tmp_path / "data"), run=str(tmp_path / "run")))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A directory of the host with a secret in a file called inner."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "inner").write_bytes(SECRET)
    return tmp_path / "secret"


def _regular(path: str, secret: Path) -> None:
    with open(path, "wb") as file:
        file.write(b"harmless")


def _fifo(path: str, secret: Path) -> None:
    os.mkfifo(path)


def _link_to_file(path: str, secret: Path) -> None:
    os.symlink(secret / "inner", path)


def _directory(path: str, secret: Path) -> None:
    os.mkdir(path)
    _regular(f"{path}/inner", secret)


def _link_to_directory(path: str, secret: Path) -> None:
    os.symlink(secret, path)


def _socket(path: str, secret: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def _device(path: str, secret: Path) -> None:
    os.mknod(path, 0o020666, os.makedev(1, 5))  # /dev/zero: read as a file, it never ends


KINDS: tuple[Callable[[str, Path], None], ...] = (
    _regular, _fifo, _link_to_file, _directory, _link_to_directory, _socket, _device,
)  # fmt: skip


@contextlib.contextmanager
def swapping(top: Path, secret: Path) -> Iterator[list[int]]:
    """A thread that puts one kind of thing after the other under the same names, by rename(2), as fast as it can."""
    stop = threading.Event()
    count = [0]

    def work() -> None:
        spare = top.parent / "spare"
        spare.mkdir()
        while not stop.is_set():
            for number, kind in enumerate(KINDS):
                new, name = str(spare / f"new{number}"), str(top / f"name{count[0] % 3}")
                kind(new, secret)
                with contextlib.suppress(OSError):
                    os.rename(name, str(spare / f"old{count[0]}"))
                with contextlib.suppress(OSError):
                    os.rename(new, name)
                count[0] += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield count
    finally:
        stop.set()
        worker.join()


def test_pack_is_not_led_outside(store: ImageStore, tmp_path: Path, secret: Path) -> None:
    """Files, FIFOs, sockets, devices, directories and links to the host's take turns under three names."""
    upper = tmp_path / "upper"
    upper.mkdir()
    kinds = set()
    with swapping(upper, secret) as count:
        while count[0] < SWAPS:
            with store.ingest() as ingest:
                try:
                    layer = changeset.pack(str(upper), [], ingest, compression="")
                except (ArchiveError, OSError):
                    continue
                blob = Path(ingest.blob(layer.digest)).read_bytes()
                assert SECRET not in blob
                assert len(blob) < 100_000
                kinds.add(len(blob))
    assert len(kinds) > 1, "nothing was ever swapped between two readings"


def test_export_is_not_led_outside(tmp_path: Path, secret: Path) -> None:
    """The same for the merged tree."""
    upper = tmp_path / "upper"
    upper.mkdir()
    lower = tmp_path / "lower"
    lower.mkdir()
    _directory(str(lower / "name1"), secret)
    with swapping(upper, secret) as count, Stack([str(upper), str(lower)]) as stack:
        while count[0] < SWAPS:
            try:
                entries = ((entry, stack.data(own) if entry.kind == "file" else ()) for entry, own in stack.walk(()))
                archive = b"".join(tarwrite.tar(entries))
            except OSError:
                continue
            assert SECRET not in archive
            assert len(archive) < 100_000


def test_diff_is_not_led_outside(tmp_path: Path, secret: Path) -> None:
    """It never names what is in the host's directory."""
    upper = tmp_path / "upper"
    upper.mkdir()
    (secret / "only-on-the-host").write_bytes(b"")
    with swapping(upper, secret) as count:
        while count[0] < SWAPS:
            with contextlib.suppress(OSError):
                found = list(changeset.changes(str(upper), []))
                assert not any(b"only-on-the-host" in change.path for change in found)
