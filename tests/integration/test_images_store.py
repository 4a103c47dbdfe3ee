# SPDX-License-Identifier: Apache-2.0
"""The image store: loading, naming, finding, removing; read and written by skopeo and podman too."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

import tars
from pyrun.rootfs import media
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.runtime.paths import Paths
from requires import requires

pytestmark = requires(root=True)

BASE = tars.tar(
    tars.member("etc", "dir", mode=0o751, uid=3, mtime=1000),
    tars.member("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n"),
    tars.member("bin/tool", data=b"#!/bin/sh\n", mode=0o755),
)
APP = tars.tar(tars.member("app/main.py", data=b"print()"), tars.member("etc/app.conf", data=b"x=1"))
CLEAN = tars.tar(tars.member("bin/.wh.tool"))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))


def load(store: ImageStore, data: bytes) -> list[str]:
    return store.load(io.BytesIO(data))


def blobs(store: ImageStore) -> set[str]:
    return set(os.listdir(f"{store.layout.path}/blobs/sha256"))


def layers(store: ImageStore) -> set[str]:
    return set(os.listdir(store.layers.path)) - {"lock"} if os.path.exists(store.layers.path) else set()


# Loading -----------------------------------------------------------------------------------------------------------

PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress, "xz": lzma.compress, "bzip2": bz2.compress,
}  # fmt: skip


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize("kind", ["docker-archive", "docker-archive gz", "oci-archive", "oci-archive gz"])
def test_archives_of_every_kind_and_compression(store: ImageStore, kind: str, pack: Callable[[bytes], bytes]) -> None:
    """Names, config and files are there afterwards; each layer is unpacked once, and its file is shared."""
    if kind.startswith("docker"):
        archive = tars.docker_archive(
            [BASE, APP], ["flask-app", "flask-app:1.0"],
            image_config=tars.config([BASE, APP], Cmd=["python3", "/app/main.py"]), compressed=kind.endswith("gz"),
        )  # fmt: skip
    else:
        oci = tars.Oci()
        image_config = tars.config([BASE, APP], Cmd=["python3", "/app/main.py"])
        manifest = oci.manifest([BASE, APP], image_config, gz=kind.endswith("gz"))
        oci.name(manifest, "flask-app")
        oci.name(manifest, "docker.io/library/flask-app:1.0")
        archive = oci.archive()
    assert sorted(load(store, pack(archive))) == ["flask-app:1.0", "flask-app:latest"]
    image = store.resolve("flask-app")
    assert image.names == ("flask-app:1.0", "flask-app:latest")
    assert image.config.cmd == ("python3", "/app/main.py")
    assert image.size == sum(len(t) for t in (b"root:x:0:0::/root:/bin/sh\n", b"#!/bin/sh\n", b"print()", b"x=1"))
    lower, upper = (Path(path) for path in store.unpacked(image))
    assert (lower / "etc/passwd").read_bytes().startswith(b"root:")
    assert (upper / "app/main.py").read_bytes() == b"print()"
    assert not (upper / "etc/passwd").exists()
    etc = (upper / "etc").stat()
    assert (etc.st_mode & 0o7777, etc.st_uid, etc.st_mtime) == (0o751, 3, 1000), "as in the layer below"
    assert (upper / "app").stat().st_mode & 0o7777 == 0o755


def test_several_images_share_their_layers(store: ImageStore) -> None:
    """Three images over one base: the base is stored and unpacked once."""
    load(store, tars.docker_archive([BASE], ["base"]))
    one = (layers(store), blobs(store))
    load(store, tars.docker_archive([BASE, APP], ["app"]))
    load(store, tars.docker_archive([BASE, CLEAN], ["clean"]))
    assert len(layers(store)) == len(one[0]) + 2
    assert len(blobs(store)) == len(one[1]) + 2 * 3
    paths = [store.unpacked(store.resolve(name))[0] for name in ("base", "app", "clean")]
    assert len(set(paths)) == 1


def test_one_archive_of_several_images(store: ImageStore) -> None:
    """Images that share blobs, in one file: each is added, the shared ones once."""
    oci = tars.Oci()
    for name, content in (("one", [BASE]), ("two", [BASE, APP]), ("three", [BASE, CLEAN, APP])):
        oci.name(oci.manifest(content), name)
    assert sorted(load(store, oci.archive())) == ["one:latest", "three:latest", "two:latest"]
    assert [len(store.unpacked(store.resolve(name))) for name in ("one", "two", "three")] == [1, 2, 3]
    assert len(blobs(store)) == 3 + 3 + 3
    for name in ("one", "two", "three"):
        store.remove(name)
    assert (layers(store), blobs(store)) == (set(), set())


def test_loading_twice_changes_nothing(store: ImageStore) -> None:
    """The same image, also with its layers packed differently, is the same image."""
    load(store, tars.docker_archive([BASE], ["base"]))
    before = (layers(store), blobs(store), [image.id for image in store.list()])
    load(store, tars.docker_archive([BASE], ["base"], compressed=True))
    assert (layers(store), blobs(store), [image.id for image in store.list()]) == before


def test_a_directory_is_loaded_like_an_archive(store: ImageStore, tmp_path: Path) -> None:
    """An OCI layout as a directory, and skopeo's dir: format."""
    oci = tars.Oci()
    oci.name(oci.manifest([BASE]), "from-directory:v1")
    for path, data in oci.files().items():
        (tmp_path / "layout" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / path).write_bytes(data)
    assert store.load(str(tmp_path / "layout")) == ["from-directory:v1"]
    subprocess.run(
        ["skopeo", "copy", "-q", f"oci:{tmp_path}/layout:from-directory:v1", f"dir:{tmp_path}/dir"], check=True
    )
    (name,) = store.load(str(tmp_path / "dir"))
    assert name == store.resolve("from-directory:v1").id


def test_an_unnamed_image_is_known_by_its_id(store: ImageStore) -> None:
    """RepoTags null, as docker save writes for an id."""
    (name,) = load(store, tars.docker_archive([BASE], None))
    image = store.resolve(name)
    assert (image.id, image.names) == (name, ())


def test_of_an_index_the_machines_platform_is_taken(store: ImageStore) -> None:
    """As buildx writes it, with an attestation beside; a platform that is not there is named."""
    _, architecture, _ = media.host_platform()
    oci = tars.Oci()
    mine = {**oci.manifest([BASE]), "platform": {"os": "linux", "architecture": architecture}}
    other = {**oci.manifest([APP]), "platform": {"os": "linux", "architecture": "pdp11"}}
    attestation = {**oci.manifest([CLEAN]), "platform": {"os": "unknown", "architecture": "unknown"}}
    index = json.dumps({"schemaVersion": 2, "manifests": [other, mine, attestation]}).encode()
    oci.name(oci.blob(index, media.OCI_INDEX), "multi")
    assert load(store, oci.archive()) == ["multi:latest"]
    assert store.resolve("multi").digest == mine["digest"]
    alone = tars.Oci()
    two = [
        {**alone.manifest([t]), "platform": {"os": "linux", "architecture": a}}
        for t, a in ((APP, "pdp11"), (BASE, "vax"))
    ]
    alone.name(alone.blob(json.dumps({"schemaVersion": 2, "manifests": two}).encode(), media.OCI_INDEX), "alien")
    with pytest.raises(PyrunError, match="linux/pdp11, linux/vax"):
        load(store, alone.archive())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"some text that is no archive", "truncated|no tar header"),
        (tars.tar(tars.member("etc/passwd")), "neither a manifest.json nor an index.json"),
        (tars.docker_archive([BASE], ["x"])[:-2048], "truncated|missing|no end mark"),
        (tars.docker_archive([BASE], ["x"])[:3000], "truncated"),
        (tars.docker_archive([BASE], ["Not A Name"]), "invalid reference"),
        (tars.docker_archive([BASE], ["x"], image_config=b"{"), "not JSON"),
        (tars.docker_archive([BASE], ["x"], image_config=b"[]"), "not an object"),
        (tars.docker_archive([BASE, APP], ["x"], image_config=tars.config([BASE])), "diff_ids"),
        (tars.tar(tars.member("manifest.json", data=b"{not json")), "not JSON"),
        (tars.tar(tars.member("manifest.json", data=b'[{"Config":"\\ud800"}]')), "not JSON.*surrogate"),
        (tars.tar(tars.member("manifest.json", data=b'[{"Config":"c"}]')), "'c' is missing"),
        (gzip.compress(tars.docker_archive([BASE], ["x"]))[:-30], "truncated"),
    ],
)
def test_bad_archives(store: ImageStore, data: bytes, why: str) -> None:
    """One line that says what is wrong; the store stays empty."""
    with pytest.raises(PyrunError, match=why):
        load(store, data)
    assert store.list() == []
    assert layers(store) == set()
    assert blobs(store) == set()
    assert os.listdir(f"{store.layout.path}/ingest") == []


def test_a_missing_file(store: ImageStore) -> None:
    """The path is in the message."""
    with pytest.raises(NotFound, match="/no/such.tar"):
        store.load("/no/such.tar")


# Names and ids -----------------------------------------------------------------------------------------------------


def test_an_image_is_found_by_name_digest_and_id(store: ImageStore) -> None:
    """All that docker takes; the beginning of an id may be short if it is unique."""
    load(store, tars.docker_archive([BASE], ["base", "localhost:5000/team/base:v2"]))
    load(store, tars.docker_archive([BASE, APP], ["app"]))
    image = store.resolve("base")
    other = store.resolve("app").id[7:]
    length = next(n for n in range(1, 64) if not other.startswith(image.id[7 : 7 + n]))
    for text in (
        "base:latest", "docker.io/library/base", "localhost:5000/team/base:v2", image.id, image.id[7:],
        image.id[7:19], image.id[: 7 + length], f"base@{image.digest}", f"localhost:5000/team/base@{image.digest}",
    ):  # fmt: skip
        assert store.resolve(text).id == image.id, text


def test_what_is_not_there_names_the_nearest(store: ImageStore) -> None:
    """A typing error, a forgotten tag, and nothing like it."""
    load(store, tars.docker_archive([BASE], ["flask-app:1.0", "other"]))
    for text, hint in (("flask-ap:1.0", "flask-app:1.0"), ("flask-app", "flask-app:1.0"), ("zzz", "pyrun images")):
        with pytest.raises(NotFound, match=f"no such image '{text}'") as caught:
            store.resolve(text)
        assert hint in caught.value.hint
    with pytest.raises(NotFound):
        store.resolve("sha256:" + "0" * 64)
    with pytest.raises(UsageError, match="lower case"):
        store.resolve("Flask-App")


def test_an_ambiguous_id_is_said_to_be_so(store: ImageStore) -> None:
    """17 images have two whose ids begin with the same digit."""
    for number in range(17):
        load(store, tars.docker_archive([BASE], None, image_config=tars.config([BASE], User=str(number))))
    digits = [image.id[7] for image in store.list()]
    shared = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(Conflict, match="ambiguous"):
        store.resolve(shared)


def test_a_name_that_moves_leaves_an_image_without_one(store: ImageStore) -> None:
    """docker's <none>; it can be removed by its id, and then everything of it is gone."""
    load(store, tars.docker_archive([BASE], ["x"]))
    old = store.resolve("x").id
    load(store, tars.docker_archive([APP], ["x"]))
    assert {image.id: image.names for image in store.list()} == {old: (), store.resolve("x").id: ("x:latest",)}
    lines = store.remove(old[7:19])
    assert lines[0] == f"Deleted: {old}"
    assert [image.names for image in store.list()] == [("x:latest",)]
    assert len(layers(store)) == 1


def test_tag(store: ImageStore) -> None:
    """Names are added to the same image; a digest is no name."""
    load(store, tars.docker_archive([BASE], ["base"]))
    store.tag("base", "mine:v1")
    store.tag(store.resolve("base").id[7:15], "reg.example/team/mine")
    assert store.resolve("base").names == ("base:latest", "mine:v1", "reg.example/team/mine:latest")
    store.tag("base", "base")
    assert len(store.list()) == 1
    with pytest.raises(NotFound):
        store.tag("nothing", "x")
    with pytest.raises(UsageError, match="digest"):
        store.tag("base", f"x@{store.resolve('base').digest}")
    with pytest.raises(UsageError):
        store.tag("base", "Bad Name")


# Removing ----------------------------------------------------------------------------------------------------------


def test_removing_the_last_name_removes_the_image(store: ImageStore) -> None:
    """Lines as docker prints them; shared layers stay as long as another image has them."""
    load(store, tars.docker_archive([BASE], ["base"]))
    load(store, tars.docker_archive([BASE, APP], ["app", "app:2"]))
    app = store.resolve("app")
    assert store.remove("app:2") == ["Untagged: app:2"]
    assert store.remove("app") == ["Untagged: app:latest", f"Deleted: {app.id}", f"Deleted: {app.chain_ids[1]}"]
    base = store.resolve("base")
    assert layers(store) == {base.chain_ids[0][7:]}
    assert store.remove(base.id[7:19]) == [
        "Untagged: base:latest",
        f"Deleted: {base.id}",
        f"Deleted: {base.chain_ids[0]}",
    ]
    assert (layers(store), blobs(store), store.list()) == (set(), set(), [])
    with pytest.raises(NotFound):
        store.remove("base")


def test_an_id_with_names_in_several_repositories_needs_force(store: ImageStore) -> None:
    """docker's rule; with names in one repository all of them go."""
    load(store, tars.docker_archive([BASE], ["one", "two"]))
    image = store.resolve("one")
    with pytest.raises(Conflict, match="several repositories"):
        store.remove(image.id)
    lines = store.remove(image.id, force=True)
    assert lines[:3] == ["Untagged: one:latest", "Untagged: two:latest", f"Deleted: {image.id}"]


def test_an_image_that_a_container_uses(store: ImageStore) -> None:
    """Its last name needs force; then it stays, without a name, with all its layers, until the container is gone."""
    load(store, tars.docker_archive([BASE], ["base", "base:2"]))
    image = store.resolve("base")
    assert store.remove("base:2", in_use=lambda _: ["web"]) == ["Untagged: base:2"]
    with pytest.raises(Conflict, match="container web uses it"):
        store.remove("base", in_use=lambda _: ["web"])
    with pytest.raises(Conflict, match="3 containers use it"):
        store.remove(image.id, in_use=lambda _: ["web", "db", "x"])
    assert store.remove("base", force=True, in_use=lambda _: ["web"]) == ["Untagged: base:latest"]
    (kept,) = store.list()
    assert (kept.id, kept.names) == (image.id, ())
    assert all(os.path.isdir(path) for path in store.unpacked(kept))
    with pytest.raises(Conflict, match="container web uses it"):
        store.remove(image.id, force=True, in_use=lambda _: ["web"])
    store.remove(image.id, in_use=lambda _: [])
    assert (layers(store), blobs(store)) == (set(), set())


def test_the_callback_is_asked_for_the_right_image(store: ImageStore) -> None:
    """By its id."""
    load(store, tars.docker_archive([BASE], ["base"]))
    asked: list[str] = []
    image = store.resolve("base")

    def in_use(image_id: str) -> list[str]:
        asked.append(image_id)
        return []

    store.remove("base", in_use=in_use)
    assert asked == [image.id]


# Looking -----------------------------------------------------------------------------------------------------------


def test_inspect_has_dockers_fields(store: ImageStore) -> None:
    """What scripts ask docker's image inspect for."""
    load(store, tars.docker_archive([BASE, APP], ["x"], image_config=tars.config([BASE, APP], Env=["A=1"], Cmd=["c"])))
    image = store.resolve("x")
    found = store.inspect(image)
    assert found["Id"] == image.id
    assert found["RepoTags"] == ["x:latest"]
    assert found["Config"]["Env"] == ["A=1"]
    assert found["Config"]["Entrypoint"] is None
    assert found["RootFS"] == {"Type": "layers", "Layers": [tars.sha256(BASE), tars.sha256(APP)]}
    assert (found["Architecture"], found["Os"], found["Size"]) == ("amd64", "linux", image.size)
    assert found["GraphDriver"]["Data"]["LowerDir"].split(":") == list(reversed(store.unpacked(image)))
    json.dumps(found)


def test_history_is_newest_first_with_layer_sizes(store: ImageStore) -> None:
    """Empty layers have no size; the first row has the image's id."""
    document = json.loads(tars.config([BASE, APP]))
    document["history"].insert(1, {"created_by": "ENV A=1", "empty_layer": True, "comment": "note"})
    load(store, tars.docker_archive([BASE, APP], ["x"], image_config=json.dumps(document).encode()))
    rows = store.history(store.resolve("x"))
    assert [(row["created_by"], row["size"]) for row in rows] == [("step 1", 10), ("ENV A=1", 0), ("step 0", 36)]
    assert rows[0]["id"] == store.resolve("x").id
    assert rows[1]["id"] == "<missing>"
    assert rows[1]["comment"] == "note"


def test_one_damaged_image_does_not_hide_the_others(store: ImageStore) -> None:
    """A config that rotted on disk: list() leaves it out, resolve() names it, the others work as before."""
    load(store, tars.docker_archive([BASE], ["good"]))
    load(store, tars.docker_archive([APP], ["bad"]))
    bad = store.resolve("bad")
    with open(store.layout.blob(bad.id), "r+b") as file:
        file.write(b"rot")
    assert [image.names for image in store.list()] == [("good:latest",)]
    with pytest.raises(PyrunError, match="another digest"):
        store.resolve("bad")
    store.tag("good", "good:2")
    assert store.remove("good:2") == ["Untagged: good:2"]
    assert load(store, tars.docker_archive([APP], ["bad"])) == ["bad:latest"], "loading it again repairs it"
    assert store.resolve("bad") == bad


def test_a_damaged_image_can_be_removed(store: ImageStore) -> None:
    """By its name, though nothing else can be done with it."""
    load(store, tars.docker_archive([APP], ["bad"]))
    bad = store.resolve("bad")
    for digest in (bad.digest, bad.id):
        os.truncate(store.layout.blob(digest), 3)
    assert store.remove("bad")[:2] == ["Untagged: bad:latest", f"Deleted: {bad.id}"]
    assert (layers(store), blobs(store)) == (set(), set())


def test_a_layer_that_was_lost_is_unpacked_again(store: ImageStore, tmp_path: Path) -> None:
    """layers/ can be thrown away; a blob that rotted meanwhile is noticed by its digest."""
    load(store, tars.docker_archive([BASE, APP], ["x"]))
    image = store.resolve("x")
    paths = store.unpacked(image)
    os.rename(store.layers.path, tmp_path / "away")
    assert store.resolve("x").size > 0
    assert store.unpacked(image) == paths
    assert all(os.path.isdir(path) for path in paths)
    os.rename(store.layers.path, tmp_path / "away2")
    with open(store.layout.blob(image.layers[1].digest), "r+b") as file:
        file.seek(600)
        file.write(b"rot")
    with pytest.raises(PyrunError, match=r"layer sha256|diff-id|checksum|content"):
        store.unpacked(image)
    assert layers(store) == set(), "all or nothing"


# import ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_import_makes_an_image_of_a_root_file_system(store: ImageStore, pack: Callable[[bytes], bytes]) -> None:
    """Config from the changes, one layer, a history entry; the same files in any compression."""
    image = store.import_rootfs(
        io.BytesIO(pack(BASE)), "debian:12", ["CMD bash", "ENV LANG=C.UTF-8", "EXPOSE 80"], "made"
    )
    assert store.resolve("debian:12").id == image.id
    assert image.names == ("debian:12",)
    assert image.diff_ids == (tars.sha256(BASE),)
    assert image.config.cmd == ("/bin/sh", "-c", "bash")
    assert image.config.exposed_ports == ("80/tcp",)
    assert image.history[0].comment == "made"
    assert image.created.endswith("Z")
    (path,) = store.unpacked(image)
    assert (Path(path) / "etc/passwd").exists()


def test_the_history_of_an_import_names_no_directory(store: ImageStore, tmp_path: Path) -> None:
    """An image is given away: where its tar was on this machine is nobody's business."""
    path = tmp_path / "root.tar"
    path.write_bytes(BASE)
    image = store.import_rootfs(str(path), "named:1")
    assert [item.comment for item in image.history] == ["Imported from root.tar"]


def test_import_refuses_before_it_reads(store: ImageStore) -> None:
    """A bad name or change costs nothing."""

    class Untouchable(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise AssertionError("read")

    for name, changes in (("Bad Name", []), ("x", ["RUN y"]), ("x@" + tars.sha256(b""), [])):
        with pytest.raises(UsageError):
            store.import_rootfs(Untouchable(), name, changes)
    assert not os.path.exists(store.layout.path)


def test_import_of_a_cut_tar(store: ImageStore) -> None:
    """No digest covers it, so the end mark must be there."""
    whole = tars.tar(tars.member("a", data=b"x" * 600), tars.member("b", data=b"y" * 600))
    for cut in (700, len(whole) // 2, len(whole) - 1024):
        with pytest.raises(PyrunError, match="truncated"):
            store.import_rootfs(io.BytesIO(whole[:cut]), "x")
    assert (store.list(), layers(store), blobs(store)) == ([], set(), set())


def test_importing_the_same_tree_twice_shares_the_layer(store: ImageStore) -> None:
    """Two images with different configs, one layer directory."""
    store.import_rootfs(io.BytesIO(BASE), "a", ["CMD x"])
    store.import_rootfs(io.BytesIO(gzip.compress(BASE)), "b", ["CMD y"])
    assert len(layers(store)) == 1
    assert store.resolve("a").id != store.resolve("b").id


# Other programs ----------------------------------------------------------------------------------------------------


def run(*command: str, **options: Any) -> str:
    found: subprocess.CompletedProcess[str] = subprocess.run(command, capture_output=True, text=True, **options)
    assert found.returncode == 0, f"{' '.join(command)}\n{found.stdout}{found.stderr}"
    return found.stdout


@requires(tools=("skopeo",))
def test_skopeo_reads_the_store(store: ImageStore, tmp_path: Path) -> None:
    """The directory is an OCI layout: skopeo finds images by their full name, and copies them out whole."""
    load(store, tars.docker_archive([BASE, APP], ["flask-app", "localhost:5000/a/b:v1"], compressed=True))
    image = store.resolve("flask-app")
    for name in ("docker.io/library/flask-app:latest", "localhost:5000/a/b:v1"):
        shown = json.loads(run("skopeo", "inspect", f"oci:{store.layout.path}:{name}"))
        assert shown["Digest"] == image.digest
    out = f"docker-archive:{tmp_path}/out.tar:copied:latest"
    run("skopeo", "copy", "-q", f"oci:{store.layout.path}:docker.io/library/flask-app:latest", out)
    assert store.load(f"{tmp_path}/out.tar") == ["copied:latest"]
    assert store.resolve("copied").id == image.id


@requires(tools=("skopeo",))
def test_what_is_saved_is_both_kinds_of_archive(store: ImageStore, tmp_path: Path) -> None:
    """docker-archive and oci-archive in one file; bit for bit the same each time; loads here again."""
    load(store, tars.docker_archive([BASE, APP], ["one", "one:2"], compressed=True))
    load(store, tars.docker_archive([BASE, CLEAN], ["two"]))
    path = tmp_path / "saved.tar"
    for target in (path, tmp_path / "again.tar"):
        with open(target, "wb") as file:
            store.save(["one", "one:2", "two", store.resolve("two").id[7:19]], file)
    assert path.read_bytes() == (tmp_path / "again.tar").read_bytes()
    image = store.resolve("one")
    docker = json.loads(run("skopeo", "inspect", "--raw", "--config", f"docker-archive:{path}:one:2"))
    assert docker["rootfs"]["diff_ids"] == list(image.diff_ids)
    oci = json.loads(run("skopeo", "inspect", f"oci-archive:{path}:docker.io/library/two:latest"))
    assert oci["Digest"] == store.resolve("two").digest
    other = ImageStore(Paths(str(tmp_path / "other"), str(tmp_path / "run2")))
    assert sorted(other.load(str(path))) == ["one:2", "one:latest", "two:latest"]
    assert {i.id: i.digest for i in other.list()} == {i.id: i.digest for i in store.list()}
    with tarfile.open(path) as archive:
        assert {m.mtime for m in archive} == {0}
    with pytest.raises(NotFound):
        store.save(["nothing"], open(os.devnull, "wb"))


@requires(tools=("podman",))
def test_podman_and_this_store_read_each_others_archives(store: ImageStore, tmp_path: Path) -> None:
    """save here, load there, save there in both formats, load here: the same image id all the way."""
    load(store, tars.docker_archive([BASE, APP, CLEAN], ["localhost/round:trip"], compressed=True))
    image = store.resolve("localhost/round:trip")
    with open(tmp_path / "here.tar", "wb") as file:
        store.save(["localhost/round:trip"], file)
    short = tempfile.mkdtemp(prefix="pyrun-")  # podman takes no run root of more than 50 characters
    podman = ["podman", f"--root={tmp_path}/podman", f"--runroot={short}", "--storage-driver=vfs"]
    try:
        run(*podman, "load", "-q", "-i", f"{tmp_path}/here.tar")
        (shown,) = json.loads(run(*podman, "image", "inspect", "localhost/round:trip"))
        assert shown["Id"] == image.id[7:]
        for form in ("docker-archive", "oci-archive"):
            out = f"{tmp_path}/{form}.tar"
            run(*podman, "save", "-q", "--format", form, "-o", out, "localhost/round:trip")
            other = ImageStore(Paths(f"{tmp_path}/data-{form}", f"{tmp_path}/run-{form}"))
            assert other.load(out) == ["localhost/round:trip"]
            assert other.resolve("localhost/round:trip").diff_ids == image.diff_ids
    finally:
        subprocess.run([*podman, "system", "reset", "-f"], capture_output=True)
        shutil.rmtree(short, ignore_errors=True)
