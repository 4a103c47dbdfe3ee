# SPDX-License-Identifier: Apache-2.0
"""What is in the store without being an image: scratch directories, what the build cache keeps, partial downloads."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tars
from pyrun.rootfs import image as images
from pyrun.rootfs.limits import ArchiveError
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError, UsageError
from pyrun.runtime.paths import Paths
from requires import requires

pytestmark = requires(root=True)

BASE = tars.tar(tars.member("etc/passwd", data=b"root"), tars.member("big", data=b"x" * 5000))
APP = tars.tar(tars.member("app", data=b"app" * 1000))
DIFF = "sha256:" + "d" * 64


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))


def load(store: ImageStore, name: str, *layers: bytes) -> None:
    store.load(io.BytesIO(tars.docker_archive(list(layers), [name])))


def layers(store: ImageStore) -> set[str]:
    return set(os.listdir(store.layers.path)) - {"lock"} if os.path.exists(store.layers.path) else set()


def blobs(store: ImageStore) -> set[str]:
    return set(os.listdir(f"{store.layout.path}/blobs/sha256"))


# Scratch -----------------------------------------------------------------------------------------------------------


def test_a_scratch_that_became_nothing_is_removed(store: ImageStore) -> None:
    """Also when the block fails; while it lives no other command's tidying touches it."""
    with store.layers.scratch() as scratch:
        Path(scratch.fs, "x").write_text("x")
        assert (os.stat(scratch.fs).st_mode & 0o7777, os.listdir(scratch.fs)) == (0o755, ["x"])
        assert scratch.make_work() == scratch.make_work() == scratch.work
        load(store, "other", BASE)
        store.remove("other")
        assert Path(scratch.fs, "x").read_text() == "x"
    assert layers(store) == set()
    with pytest.raises(ZeroDivisionError), store.layers.scratch() as scratch:
        raise ZeroDivisionError
    assert layers(store) == set()


def test_a_scratch_becomes_a_layer(store: ImageStore) -> None:
    """Under its chain id, above its parent, with what `done` says; the same one twice is one layer."""
    load(store, "base", BASE)
    parent = store.resolve("base").chain_ids[0]
    chain = images.chain_id(parent, DIFF)
    for _ in range(2):
        with store.layers.scratch() as scratch:
            Path(scratch.fs, "new").write_text("new")
            scratch.make_work()
            assert scratch.become(parent, diff_id=DIFF, digest=DIFF, size=3, entries=1) == chain
            assert Path(store.layers.fs(chain), "new").read_text() == "new"
        assert sorted(os.listdir(store.layers.directory(chain))) == ["done", "fs"]
        assert store.layers.size(chain) == 3
    with store.layers.scratch() as scratch:
        assert scratch.become("", diff_id=DIFF, digest=DIFF, size=0, entries=0) == DIFF
    with store.layers.scratch() as scratch, pytest.raises(PyrunError, match="gone"):
        scratch.become("sha256:" + "0" * 64, diff_id=DIFF, digest=DIFF, size=0, entries=0)


def test_a_new_layer_is_safe_until_its_scratch_ends(store: ImageStore) -> None:
    """A removal in between leaves it; afterwards, named by nothing, the next change takes it away."""
    with store.layers.scratch() as scratch:
        chain = scratch.become("", diff_id=DIFF, digest=DIFF, size=0, entries=0)
        load(store, "other", BASE)
        store.remove("other")
        assert store.layers.has(chain)
        with store.layers.scratch() as second:  # the same layer again: this one uses the first one's
            second.become("", diff_id=DIFF, digest=DIFF, size=0, entries=0)
            scratch.__exit__(None, None, None)
            load(store, "other", BASE)
            store.remove("other")
            assert store.layers.has(chain)
    load(store, "other", BASE)
    assert not store.layers.has(chain)
    assert layers(store) == {store.resolve("other").chain_ids[0][7:]}


def test_a_killed_scratch_is_tidied_up(store: ImageStore) -> None:
    """Before it became a layer and after."""
    for become in (False, True):
        child = os.fork()
        if child == 0:
            scratch = store.layers.scratch().__enter__()
            if become:
                scratch.become("", diff_id=DIFF, digest=DIFF, size=0, entries=0)
            os._exit(0)
        os.waitpid(child, 0)
        assert len(layers(store)) == 1 + become  # a layer, and the note that there is one without a name
        load(store, "other", BASE)
        assert layers(store) == {store.resolve("other").chain_ids[0][7:]}
        store.remove("other")


def test_a_scratch_can_be_kept(store: ImageStore) -> None:
    """For the shell at a failed step: nobody removes it but who asked for it."""
    with store.layers.scratch() as scratch:
        Path(scratch.fs, "state").write_text("here")
        path = scratch.keep()
    load(store, "other", BASE)
    store.remove("other")
    assert Path(path, "fs", "state").read_text() == "here"


# Ingest ------------------------------------------------------------------------------------------------------------


def test_a_verified_file_becomes_a_blob(store: ImageStore, tmp_path: Path) -> None:
    """take() moves it; one of another size is refused and stays."""
    path = tmp_path / "data" / "download"
    with store.ingest() as ingest:
        path.write_bytes(BASE)
        with pytest.raises(ArchiveError, match=f"{len(BASE)} bytes, not 5"):
            ingest.take(str(path), tars.sha256(BASE), 5)
        ingest.take(str(path), tars.sha256(BASE), len(BASE))
        assert not path.exists()
        assert Path(ingest.blob(tars.sha256(BASE))).read_bytes() == BASE
        assert ingest.sizes == {tars.sha256(BASE): len(BASE)}


def test_blobs_are_added_by_many_threads(store: ImageStore) -> None:
    """Each its own content, some the same one; a wrong digest fails alone and leaves no file."""
    failures: list[str] = []
    with store.ingest() as ingest:

        def add(number: int) -> None:
            data = b"%d" % (number % 5) * 100_000
            try:
                ingest.add((data[at : at + 999] for at in range(0, len(data), 999)), digest=tars.sha256(data))
            except BaseException as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        with pytest.raises(ArchiveError, match="its content is"):
            ingest.add([b"lie"], digest=tars.sha256(b"truth"))
        for thread in threads:
            thread.join()
        assert failures == []
        assert sorted(os.listdir(ingest.path)) == sorted(tars.sha256(b"%d" % n * 100_000)[7:] for n in range(5))


# Kept --------------------------------------------------------------------------------------------------------------


def test_what_is_kept_outlives_its_image(store: ImageStore) -> None:
    """Layers and blobs stay when the image is removed, and go with drop_kept()."""
    load(store, "base", BASE)
    chain = store.resolve("base").chain_ids[0]
    with store.ingest() as ingest:
        own = ingest.add([b"a record of a step"])
        store.keep(ingest, "step-1", layers=[chain], blobs=[own, tars.sha256(BASE)], data={"key": ["ü", 1]})
    store.remove("base")
    assert store.layers.has(chain)
    assert blobs(store) == {own[7:], tars.sha256(BASE)[7:]}
    (kept,) = store.kept("step-")
    assert (kept.name, kept.layers, kept.blobs, kept.data) == (
        "step-1", (chain,), (own, tars.sha256(BASE)), {"key": ["ü", 1]},
    )  # fmt: skip
    assert store.kept("other") == []
    path = store.find_blob(own)
    assert path is not None
    assert Path(path).read_bytes() == b"a record of a step"
    pruned = store.drop_kept(["step-1", "not-there"])
    assert pruned.lines == (f"Deleted: {chain}",)
    assert pruned.bytes == 5004 + len(b"a record of a step") + len(BASE)
    assert (layers(store), blobs(store), store.kept(), store.find_blob(own)) == (set(), set(), [], None)


def test_kept_one_is_noted_as_used(store: ImageStore) -> None:
    """By the file's time, which decides what the cache forgets first; None once a part of it is gone."""
    load(store, "base", BASE)
    chain = store.resolve("base").chain_ids[0]
    store.keep(None, "x", layers=[chain], blobs=[tars.sha256(BASE)], data={})
    path = f"{store.layout.path}/keep/x.json"
    os.utime(path, (5, 5))
    assert [kept.used_at for kept in store.kept()] == [5]
    assert store.kept_one("x") is not None
    assert time.time() - os.stat(path).st_mtime < 60
    os.unlink(store.layout.blob(tars.sha256(BASE)))
    assert store.kept_one("x") is None
    assert store.kept_one("never") is None


def test_only_what_is_there_is_kept(store: ImageStore) -> None:
    """A missing layer or blob, or a name that would lead elsewhere, is an error; nothing is written."""
    load(store, "base", BASE)
    for bad in ({"layers": [DIFF], "blobs": []}, {"layers": [], "blobs": [DIFF]}):
        with pytest.raises(PyrunError, match="not in the store"):
            store.keep(None, "x", data={}, **bad)
    for name in ("../x", "", "a/b", ".x", "-x", "x" * 300, "ü"):
        with pytest.raises(UsageError):
            store.keep(None, name, layers=[], blobs=[], data={})
    assert store.kept() == []
    assert not os.path.exists(f"{store.layout.path}/keep")


def test_a_damaged_note_counts_as_none(store: ImageStore) -> None:
    """It is a cache: what it named is removed, and the store goes on."""
    load(store, "base", BASE)
    store.keep(None, "x", layers=store.resolve("base").chain_ids, blobs=[], data={})
    for text in ("", "[]", '{"layers": 5}', json.dumps({"layers": {}, "blobs": [], "data": {}})):
        Path(store.layout.path, "keep", "x.json").write_text(text)
        assert (store.kept(), store.kept_one("x")) == ([], None)
    store.remove("base")
    assert layers(store) == set()


# Partial downloads -------------------------------------------------------------------------------------------------


def test_old_partial_downloads_are_removed(store: ImageStore) -> None:
    """Those of more than a week, by any change; all of them by prune; never one that somebody writes."""
    load(store, "base", BASE)
    week = 7 * 24 * 3600
    paths = {name: store.layout.partial(tars.sha256(name.encode())) for name in ("old", "new", "written")}
    for name, path in paths.items():
        Path(path).write_bytes(name.encode())
        if name != "new":
            os.utime(path, (time.time() - week - 60,) * 2)
    with open(paths["written"], "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        store.tag("base", "again")
        assert {name for name, path in paths.items() if os.path.exists(path)} == {"new", "written"}
        assert store.usage().partial_size == len("new") + len("written")
        assert store.prune().bytes == len("new")
        assert os.listdir(f"{store.layout.path}/partial") == [os.path.basename(paths["written"])]
    os.utime(paths["written"])
    assert store.prune().bytes == len("written")


# Usage and prune ---------------------------------------------------------------------------------------------------


def test_usage_counts_every_layer_once(store: ImageStore) -> None:
    """Shared and own bytes of each image, and what only the cache has."""
    load(store, "base", BASE)
    load(store, "app", BASE, APP)
    with store.layers.scratch() as scratch:
        Path(scratch.fs, "f").write_bytes(b"z" * 70)
        chain = scratch.become("", diff_id=DIFF, digest=DIFF, size=70, entries=1)
        store.keep(None, "k", layers=[*store.resolve("base").chain_ids, chain], blobs=[], data={})
    usage = store.usage()
    assert {item.image.names[0]: (item.size, item.shared, item.unique) for item in usage.images} == {
        "base:latest": (5004, 5004, 0),
        "app:latest": (8004, 5004, 3000),
    }
    assert (usage.images_size, usage.kept_size) == (8004, 70)
    assert [(item.keep.name, item.size, item.shared) for item in usage.kept] == [("k", 5074, 5004)]
    assert usage.blobs_size == sum(os.stat(store.layout.blob(f"sha256:{name}")).st_size for name in blobs(store))


def test_prune_removes_what_nobody_uses(store: ImageStore) -> None:
    """Images without a name; with `all` those that no container uses; filters and the cache's layers stay."""
    load(store, "x", BASE)
    dangling = store.resolve("x")
    load(store, "x", APP)
    load(store, "used", BASE, APP)
    load(store, "filtered", APP, BASE)
    pruned = store.prune(in_use=lambda image_id: ["c"] if image_id == dangling.id else [])
    assert pruned.lines == ()
    assert pruned.bytes == 0
    pruned = store.prune()
    assert pruned.lines == (f"Deleted: {dangling.id}",), "its layer is the other image's too"
    assert pruned.bytes > 0
    used = store.resolve("used").id
    named = store.resolve("x")
    lines = store.prune(
        all=True,
        keep=lambda image: "filtered:latest" in image.names,
        in_use=lambda image_id: ["web"] if image_id == used else [],
    ).lines
    assert lines == ("Untagged: x:latest", f"Deleted: {named.id}")
    assert sorted(name for image in store.list() for name in image.names) == ["filtered:latest", "used:latest"]
    chain = store.resolve("used").chain_ids[1]
    store.keep(None, "cache", layers=[chain], blobs=[], data={})
    store.prune(all=True)
    assert (store.list(), layers(store), blobs(store)) == ([], {chain[7:]}, set())


def test_a_prune_waits_for_a_container_that_is_being_made(store: ImageStore) -> None:
    """hold() keeps the layers there; the prune comes after it."""
    load(store, "base", BASE)
    (path,) = store.unpacked(store.resolve("base"))
    code = (
        "import sys\nfrom pyrun.rootfs.store import ImageStore\nfrom pyrun.runtime.paths import Paths\n"
        "ImageStore(Paths(*sys.argv[1:])).prune(all=True)"
    )
    data = os.path.dirname(store.layout.path)
    with store.hold():
        child = subprocess.Popen([sys.executable, "-c", code, data, f"{data}-run"])
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        assert os.path.isdir(path)
    assert child.wait(20) == 0
    assert not os.path.exists(path)


def test_layers_are_spread_over_the_disk(store: ImageStore) -> None:
    """chattr +T on their directory, where the file system has that (ext4): see layers._spread()."""
    load(store, "base", BASE)
    kind = subprocess.run(["stat", "-f", "-c", "%T", store.layers.path], capture_output=True, text=True, check=True)
    listed = subprocess.run(["lsattr", "-d", store.layers.path], capture_output=True, text=True)
    assert "ext" not in kind.stdout or "T" in listed.stdout.split()[0]
