# SPDX-License-Identifier: Apache-2.0
"""Unpacker: layers in any order and several at a time give the same trees as one after the other."""

from __future__ import annotations

import gzip
import os
import random
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tars
from pyrun.rootfs import image as images
from pyrun.rootfs.image import Image
from pyrun.rootfs.layout import Ingest
from pyrun.rootfs.limits import ArchiveError
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.paths import Paths
from requires import requires

pytestmark = requires(root=True)

LAYERS = [
    tars.tar(
        tars.member("srv", "dir", mode=0o700, uid=7, mtime=1000), tars.member("srv/www", "dir", mode=0o2755, gid=33),
        tars.member("a", data=b"1"), tars.member(".", "dir", mode=0o711, mtime=77),
    ),
    tars.tar(tars.member("srv/www/index.html", data=b"2" * 300_000)),
    tars.tar(tars.member("srv/.wh.www"), tars.member("b", "dir", mode=0o750)),
    tars.tar(tars.member("srv/www/back", data=b"4"), tars.member("b/c/d", data=b"5")),
]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))


def prepare(ingest: Ingest, layers: list[bytes]) -> tuple[str, Image]:
    """The blobs of an image in the ingest; the digest of its manifest, and what it is."""
    oci = tars.Oci()
    digest = oci.manifest(layers, gz=True)["digest"]
    for data in oci.blobs.values():
        ingest.add([data])
    limits = ingest.read(digest)
    manifest = __import__("json").loads(limits)
    config = __import__("json").loads(ingest.read(manifest["config"]["digest"]))
    return digest, images.parse(digest, manifest, config)


def tree(store: ImageStore, image: Image) -> list[tuple[Any, ...]]:
    """All that can be seen of the unpacked layers."""
    found: list[tuple[Any, ...]] = []
    for number, path in enumerate(store.unpacked(image)):
        for directory, _, files in os.walk(path):
            for name in [".", *sorted(files)]:
                info = os.lstat(os.path.join(directory, name))
                content = Path(directory, name).read_bytes() if stat.S_ISREG(info.st_mode) else b""
                place = os.path.relpath(os.path.join(directory, name), path)
                mtime = info.st_mtime if stat.S_ISDIR(info.st_mode) else 0
                found.append((number, place, info.st_mode, info.st_uid, info.st_gid, mtime, content, info.st_rdev))
    return sorted(found)


@pytest.mark.parametrize("seed", range(6))
def test_any_order_gives_the_same_layers(store: ImageStore, tmp_path: Path, seed: int) -> None:
    """Parents that a layer does not list look as below, whichever comes first, from several threads."""
    with store.ingest() as ingest:
        digest, image = prepare(ingest, LAYERS)
        expected = store.add(ingest, digest, ["docker.io/library/plain:latest"])
    other = ImageStore(Paths(str(tmp_path / "other"), str(tmp_path / "run")))
    order = list(image.layers)
    random.Random(seed).shuffle(order)
    with other.ingest() as ingest, other.unpacker(image.layers) as unpacker:
        prepare(ingest, LAYERS)
        threads = [
            threading.Thread(target=unpacker.start, args=(layer, ingest.blob(layer.digest)))
            for layer in order[: seed % 5]  # the rest is left to add()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = other.add(ingest, digest, ["docker.io/library/other:latest"], unpacker=unpacker)
    assert tree(other, found) == tree(store, expected)
    assert {name for name in os.listdir(other.layers.path) if name != "lock"} == {c[7:] for c in found.chain_ids}


def test_an_error_comes_out_of_add_and_leaves_nothing(store: ImageStore) -> None:
    """The layer is named; layers of the same image that were fine are gone too."""
    with store.ingest() as ingest:
        digest, image = prepare(ingest, LAYERS)
        bad = image.layers[1].replace(diff_id=tars.sha256(b"another"))
        with store.unpacker((image.layers[0], bad, *image.layers[2:])) as unpacker:
            for layer in (image.layers[2], bad, image.layers[0]):
                unpacker.start(layer, ingest.blob(layer.digest))
            with pytest.raises(ArchiveError, match="its diff-id is"):
                store.add(ingest, digest, unpacker=unpacker)
    assert store.list() == []
    assert os.listdir(store.layers.path) == []


def test_one_that_is_never_finished_leaves_nothing(store: ImageStore) -> None:
    """A download that fails in the middle: the block ends, threads and directories with it."""
    with store.ingest() as ingest:
        _, image = prepare(ingest, [tars.tar(tars.member("big", data=os.urandom(30_000_000))), *LAYERS[1:]])
        with pytest.raises(ZeroDivisionError), store.unpacker(image.layers) as unpacker:
            for layer in image.layers:
                unpacker.start(layer, ingest.blob(layer.digest))
            raise ZeroDivisionError
        unpacker.start(image.layers[0], ingest.blob(image.layers[0].digest))  # too late: nothing happens
    assert not [thread for thread in threading.enumerate() if thread.name in ("unpack", "read-ahead")]
    assert os.listdir(store.layers.path) == []


def children(count: int, action: Callable[[int], object]) -> list[int]:
    """The exit codes of `count` processes that run action(number)."""
    found = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            try:
                action(number)
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        found.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in found]


def test_two_pulls_that_begin_at_opposite_ends_do_not_wait_for_ever(store: ImageStore) -> None:
    """One has the upper layers, the other the lower ones: each shows what it has before it waits for the other."""
    for turn in range(5):
        fresh = [*LAYERS, tars.tar(tars.member("turn", data=b"%d" % turn))]

        def pull(number: int, fresh: list[bytes] = fresh) -> None:
            with store.ingest() as ingest:
                digest, image = prepare(ingest, fresh)
                with store.unpacker(image.layers) as unpacker:
                    for layer in image.layers[:: -1 if number % 2 else 1][:3]:
                        unpacker.start(layer, ingest.blob(layer.digest))
                    store.add(ingest, digest, [f"docker.io/library/image{number}:latest"], unpacker=unpacker)

        assert children(4, pull) == [0] * 4
        assert len(set(os.listdir(store.layers.path)) - {"lock"}) == 5 + turn


def test_a_blob_that_is_not_a_layer(store: ImageStore) -> None:
    """Compressed rubbish and cut data are errors like anywhere."""
    for rubbish in (gzip.compress(b"no tar at all"), gzip.compress(LAYERS[1])[:-20]):
        with store.ingest() as ingest:
            path = ingest.blob(ingest.add([rubbish]))
            layer = images.Layer(tars.sha256(rubbish), len(rubbish), "", tars.sha256(b""), tars.sha256(b""))
            with store.unpacker([layer]) as unpacker, pytest.raises(PyrunError, match=r"tar header|truncated"):
                unpacker.start(layer, path)
                unpacker.finish()
    assert os.listdir(store.layers.path) == []
