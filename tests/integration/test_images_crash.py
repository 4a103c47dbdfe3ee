# SPDX-License-Identifier: Apache-2.0
"""kill -9 at any point, and many at once: the next command finds a whole store and removes what was left."""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import tars
from pyrun.rootfs import image as images
from pyrun.rootfs.inroot import remove_path
from pyrun.rootfs.layered import read_file
from pyrun.rootfs.store import ImageStore
from pyrun.rootfs.volumes import VolumeStore
from pyrun.runtime.errors import NotFound
from pyrun.runtime.paths import Paths
from requires import requires

pytestmark = requires(root=True)

BASE = tars.tar(
    tars.member("etc/passwd", data=b"root"), tars.member("d", "dir"), tars.member("d/x", "symlink", linkname="y")
)
APP = tars.tar(tars.member("app", data=b"app" * 1000), tars.member("d/.wh.x"))
ONE = tars.docker_archive([BASE], ["one"], compressed=True)
TWO = tars.docker_archive([BASE, APP], ["two"])


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory: hundreds of stores are made here, and each would wait for the disk."""
    path = Path(tempfile.mkdtemp(prefix="pyrun-test-", dir="/dev/shm"))
    yield path
    remove_path(str(path))


CHANGES = {
    "open", "mkdir", "rmdir", "rename", "unlink", "link", "symlink", "mknod", "write", "fsync", "utime", "setxattr",
    "chown", "chmod", "fchown", "fchmod", "remove",
}  # fmt: skip


def killed_before(number: int, action: Callable[[], object]) -> bool:
    """Runs `action` in a child, killed before its `number`th system call that changes a file; False if it ended."""
    child = os.fork()
    if child == 0:
        try:
            seen = 0

            def watch(frame: FrameType, event: str, function: Any) -> None:
                nonlocal seen
                if event == "c_call" and function.__name__ in CHANGES and function.__module__ in ("posix", "io", "_io"):
                    seen += 1
                    if seen == number:
                        os.kill(os.getpid(), signal.SIGKILL)

            threading.setprofile(watch)
            sys.setprofile(watch)
            action()
            sys.setprofile(None)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), "the action failed"
    return status != 0


def leftovers(store: ImageStore) -> list[str]:
    """What nobody should find after the next command: temporaries, marks, blobs and layers that no image has."""
    found = []
    listed = store.list()
    wanted = {digest[7:] for i in listed for digest in (i.id, i.digest, *(layer.digest for layer in i.layers))}
    wanted |= {digest[7:] for keep in store.kept() for digest in keep.blobs}
    found += [f"blob {name}" for name in set(os.listdir(f"{store.layout.path}/blobs/sha256")) ^ wanted]
    chains = {chain_id[7:] for image in listed for chain_id in image.chain_ids}
    chains |= {chain_id[7:] for keep in store.kept() for chain_id in keep.layers}
    found += [f"layer {name}" for name in (set(os.listdir(store.layers.path)) ^ chains) - {"lock"}]
    found += [f"ingest {name}" for name in os.listdir(f"{store.layout.path}/ingest")]
    if os.path.exists(f"{store.layout.path}/keep"):
        found += sorted(set(os.listdir(f"{store.layout.path}/keep")) - {f"{keep.name}.json" for keep in store.kept()})
    layout = {"blobs", "index.json", "ingest", "keep", "lock", "oci-layout"}
    found += sorted(set(os.listdir(store.layout.path)) - layout)
    return found


def whole(store: ImageStore) -> None:
    """Every image that is listed can be used."""
    for image in store.list():
        paths = store.unpacked(image)
        assert read_file(tuple(reversed(paths)), "/etc/passwd", 100) == b"root"
        assert os.path.exists(f"{store.layers.directory(image.chain_ids[0])}/done")
    for keep in store.kept():
        assert store.kept_one(keep.name), keep.name


def build_step(store: ImageStore, name: str) -> None:
    """What a build does for each of its steps: a layer above another one, and a note that keeps both and a blob."""
    with store.ingest() as ingest, store.layers.scratch() as scratch:
        with store.hold():
            (parent,) = store.resolve("one").chain_ids
            store.unpacked(store.resolve("one"))
            ingest.keep_layers([parent])
        with open(f"{scratch.fs}/made-by", "w") as file:
            file.write(name)
        blob = ingest.add([f"record of {name}".encode()])
        diff_id = tars.sha256(name.encode())
        chain_id = scratch.become(parent, diff_id=diff_id, digest=blob, size=len(name), entries=1)
        store.keep(ingest, name, layers=[parent, chain_id], blobs=[blob], data={"step": name})


def pull(store: ImageStore) -> None:
    """An image whose layers are unpacked while they come in, the upper ones first."""
    oci = tars.Oci()
    manifest = oci.manifest([BASE, APP], gz=True)["digest"]
    with store.ingest() as ingest:
        for data in oci.blobs.values():
            ingest.add([data])
        image = images.parse(manifest, *store._documents(ingest, manifest))
        with store.unpacker(image.layers) as unpacker:
            for layer in reversed(image.layers):
                unpacker.start(layer, ingest.blob(layer.digest))
            store.add(ingest, manifest, ["docker.io/library/pulled:latest"], unpacker=unpacker)


ACTIONS: dict[str, Callable[[ImageStore], object]] = {
    "load": lambda store: store.load(io.BytesIO(TWO)),
    "import": lambda store: store.import_rootfs(io.BytesIO(BASE + b""), "imported"),
    "tag": lambda store: store.tag("one", "one:again"),
    "retag": lambda store: store.load(io.BytesIO(tars.docker_archive([BASE, APP], ["one"]))),
    "remove": lambda store: store.remove("gone"),
    "build step": lambda store: build_step(store, "step-9"),
    "drop kept": lambda store: store.drop_kept(["step-1", "step-2"]),
    "prune": lambda store: store.prune(all=True, keep=lambda image: "one:latest" in image.names),
    "pull": pull,
}


@pytest.mark.parametrize("name", ACTIONS)
def test_killed_before_any_system_call(memory: Path, name: str) -> None:
    """In turn: what was there is there, what came is whole or not there, and the next change tidies up."""
    for number in range(1, 2000):
        base = memory / str(number)
        store = ImageStore(Paths(str(base / "data"), str(base / "run")))
        store.load(io.BytesIO(ONE))
        if name in ("remove", "prune"):
            store.load(io.BytesIO(tars.docker_archive([BASE, APP], ["gone"])))
        if name == "drop kept":
            build_step(store, "step-1")
            build_step(store, "step-2")
        killed = killed_before(number, lambda store=store: ACTIONS[name](store))  # type: ignore[misc]
        whole(store)
        assert store.resolve("one:latest").names
        store.tag("one", "one:next")
        assert leftovers(store) == [], f"after a kill before call {number}"
        whole(store)
        if not killed:
            break
        ACTIONS[name](store) if name != "remove" or len(store.list()) > 1 else None
        store.tag("one", "one:next")
        assert leftovers(store) == []
        whole(store)
    assert 3 < number < 1999
    assert not killed


def test_a_volume_killed_before_any_system_call(memory: Path) -> None:
    """Made with its data directory or not at all; content that was half copied from the image is copied again."""
    store = ImageStore(Paths(str(memory / "images"), str(memory / "run")))
    store.load(io.BytesIO(TWO))
    layers = tuple(reversed(store.unpacked(store.resolve("two"))))
    for number in range(1, 500):
        volumes = VolumeStore(Paths(str(memory / str(number)), str(memory / "run")))

        def use(volumes: VolumeStore = volumes) -> None:
            volumes.copy_up(volumes.create("data"), layers, "/")

        killed = killed_before(number, use)
        use()
        assert sorted(os.listdir(volumes.path)) == ["data", "lock"]
        assert sorted(os.listdir(volumes.get("data").mountpoint)) == ["app", "d", "etc"]
        assert sorted(os.listdir(f"{volumes.path}/data")) == ["_data", "lock", "volume.json"]
        with open(f"{volumes.get('data').mountpoint}/app", "rb") as file:
            assert len(file.read()) == 3000
        if not killed:
            break
    assert not killed


def worker(paths: Paths, seed: int, seconds: float) -> None:
    """Loads, removes, tags and uses images at random."""
    store, choose = ImageStore(paths), random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number = choose.randrange(4)
        name = f"image{number}"
        try:
            what = choose.randrange(10)
            if what == 0:
                own = tars.tar(tars.member("own", data=b"%d" % number * 1000))
                layers = [BASE, own, APP] if number % 2 else [BASE, own]
                store.load(io.BytesIO(tars.docker_archive(layers, [name], compressed=bool(number & 2))))
            elif what == 1:
                store.remove(name)
            elif what == 2:
                store.tag(name, f"image{choose.randrange(4)}")
            elif what == 3:
                store.load(io.BytesIO(ONE))
            elif what == 4:
                build_step(store, f"step-{number}")
            elif what == 5:
                store.drop_kept([f"step-{number}"])
            elif what == 6:
                pull(store)
            elif what == 7:
                store.prune(all=choose.random() < 0.3)
            else:
                with store.hold():
                    lowers = store.unpacked(store.resolve(name))
                    time.sleep(choose.random() / 100)
                    assert read_file(tuple(reversed(lowers)), "/etc/passwd", 100) == b"root", lowers
                    assert all(len(os.listdir(path)) for path in lowers), lowers
        except NotFound:
            pass


def test_many_commands_at_once(memory: Path) -> None:
    """Six processes that load, remove, tag and use the same four images: none fails, none sees half a layer."""
    paths = Paths(str(memory / "data"), str(memory / "run"))
    children = []
    for seed in range(6):
        child = os.fork()
        if child == 0:
            try:
                worker(paths, seed, 4)
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    store = ImageStore(paths)
    store.load(io.BytesIO(ONE))
    store.remove("one")
    assert leftovers(store) == []
    whole(store)


def test_many_killed_at_once(memory: Path) -> None:
    """The same with SIGKILL at random moments: what is left is whole, and the next command tidies up."""
    paths = Paths(str(memory / "data"), str(memory / "run"))
    choose = random.Random(1)
    for turn in range(12):
        children = []
        for seed in range(3):
            child = os.fork()
            if child == 0:
                try:
                    worker(paths, turn * 10 + seed, 5)
                finally:
                    os._exit(1)
            children.append(child)
        time.sleep(choose.random() / 3)
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        whole(ImageStore(paths))
    store = ImageStore(paths)
    store.load(io.BytesIO(ONE))
    store.remove("one")
    assert leftovers(store) == []


def test_two_commands_that_need_the_same_layer_unpack_it_once(memory: Path) -> None:
    """The second waits for the first and takes what it made."""
    paths = Paths(str(memory / "data"), str(memory / "run"))
    store = ImageStore(paths)
    store.load(io.BytesIO(TWO))
    image = store.resolve("two")
    os.rename(store.layers.path, memory / "away")
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if store.layers.ensure(image.layers, store._open_blob) else 7)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes in ([0, 7, 7, 7], [0, 0, 7, 7]), "two layers: one process made both, or each of two made one"
    assert leftovers(store) == []
