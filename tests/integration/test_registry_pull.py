# SPDX-License-Identifier: Apache-2.0
"""Pulling from the real docker-registry: kinds of manifests and layers, platforms, digests, mirrors, interruptions."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

import tars
from pyrun.rootfs import media, refs
from pyrun.rootfs.layered import read_file
from pyrun.rootfs.registry.errors import Unreachable
from pyrun.rootfs.registry.progress import Progress
from pyrun.rootfs.registry.pull import Pulled, pull, tags
from pyrun.rootfs.registry.sockets import Patience
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from pyrun.runtime.paths import Paths
from registries import TOOLS, DockerRegistry, configured, publish, skopeo, upload
from requires import requires

pytestmark = requires(root=True, tools=TOOLS)

BASE = tars.tar(tars.member("etc", "dir"), tars.member("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n"))
APP = tars.tar(tars.member("app/main.py", data=b"print()"))
QUICK = Patience(attempts=3, first_delay_s=0.05, read_s=5.0, connect_s=5.0)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path / "store")


def new_store(path: Path) -> ImageStore:
    return ImageStore(Paths(str(path / "data"), str(path / "run")))


def get(store: ImageStore, registry: DockerRegistry, name: str, **options: Any) -> Pulled:
    options.setdefault("registries", configured(registry.host))
    options.setdefault("patience", QUICK)
    return pull(store, refs.parse(f"{registry.host}/{name}"), **options)


def content(store: ImageStore, name: str, path: str) -> bytes:
    """A file of an image, as a container would see it."""
    lowers = store.unpacked(store.resolve(name))
    return read_file([os.fspath(lower) for lower in reversed(lowers)], path, 1 << 30)


def nothing_left(store: ImageStore) -> None:
    """No ingest, no partial download, no temporary layer."""
    left = []
    for directory in (f"{store.layout.path}/ingest", f"{store.layout.path}/partial"):
        left += os.listdir(directory) if os.path.isdir(directory) else []
    layers = os.listdir(store.layers.path) if os.path.isdir(store.layers.path) else []
    assert not left
    assert not [name for name in layers if name.endswith((".tmp", ".del"))]


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # the same bytes each time


PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, "gzip": gz, "zstd": zstd}


def made(layers: list[bytes], *, pack: str = "gzip", docker: bool = False, **config: Any) -> tuple[tars.Oci, Any]:
    """An image of these layers; its manifest's descriptor."""
    oci = tars.Oci()
    document = tars.config(layers, **config)
    docker_layer = "application/vnd.docker.image.rootfs.diff.tar"
    kind = (docker_layer + (f".{pack}" if pack else "")) if docker else media.LAYER_OF[pack]
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.DOCKER_MANIFEST if docker else media.OCI_MANIFEST,
        "config": oci.blob(document, media.DOCKER_CONFIG if docker else media.OCI_CONFIG),
        "layers": [oci.blob(PACK[pack](layer), kind) for layer in layers],
    }
    return oci, oci.blob(json.dumps(manifest).encode(), str(manifest["mediaType"]))


def put(registry: DockerRegistry, tmp_path: Path, name: str, layers: list[bytes], **options: Any) -> str:
    """Lets skopeo push an image; its digest in the registry."""
    oci, descriptor = made(layers, **options)
    oci.name(descriptor, "")
    publish(tmp_path / "layout" / name.replace("/", "-").replace(":", "-"), oci, f"{registry.host}/{name}")
    return str(descriptor["digest"])


def digest_of(registry: DockerRegistry, name: str) -> str:
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/{name}")
    return tars.sha256(raw.encode())


# Kinds --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_every_kind_of_manifest_and_layer(
    store: ImageStore, registry: DockerRegistry, tmp_path: Path, docker: bool, pack: str
) -> None:
    """Name, digest, config and files are there afterwards, and nothing besides."""
    name = f"kinds/{'docker' if docker else 'oci'}-{pack or 'plain'}:1"
    if docker:  # skopeo reads no such layouts: the bytes go there by the registry's own protocol
        digest = upload(registry, name, *made([BASE, APP], pack=pack, docker=True, Cmd=["sh"]))
    else:
        digest = put(registry, tmp_path, name, [BASE, APP], pack=pack, Cmd=["sh"])
    pulled = get(store, registry, name)
    assert pulled.changed
    assert pulled.digest == digest == digest_of(registry, name)
    full = f"{registry.host}/{name}"
    image = store.resolve(full)
    assert image.names == (full,)
    assert image.repo_digests == (f"{full.rpartition(':')[0]}@{digest}",)
    assert image.config.cmd == ("sh",)
    assert image.id == pulled.image.id
    assert content(store, full, "etc/passwd").startswith(b"root:")
    assert content(store, full, "app/main.py") == b"print()"
    nothing_left(store)


def put_index(registry: DockerRegistry, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """An index of two platforms and an attestation; its digest, and the image ids by architecture."""
    oci = tars.Oci()
    found = {}
    entries = []
    for architecture, variant, text in (("amd64", "", b"this"), ("arm64", "v8", b"other")):
        layer = tars.tar(tars.member("which", data=text))
        document = json.loads(tars.config([layer]))
        document |= {"architecture": architecture, "variant": variant}
        descriptor = oci.manifest([layer], json.dumps(document).encode(), gz=True)
        platform = {"os": "linux", "architecture": architecture, **({"variant": variant} if variant else {})}
        entries.append({**descriptor, "platform": platform})
        found[architecture] = tars.sha256(json.dumps(document).encode())
    attestation = oci.manifest([tars.tar(tars.member("sbom"))], gz=True)
    entries.append({**attestation, "platform": {"os": "unknown", "architecture": "unknown"}})
    document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}
    index = oci.blob(json.dumps(document).encode(), media.OCI_INDEX)
    oci.name(index, "")
    publish(tmp_path / "index", oci, f"{registry.host}/multi:1")
    return str(index["digest"]), found


def test_index_and_platforms(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """This machine's platform by default, another by --platform; what is not there is named with what is."""
    digest, ids = put_index(registry, tmp_path)
    pulled = get(store, registry, "multi:1")
    assert pulled.image.id == ids[pulled.image.architecture]
    assert pulled.digest == digest
    assert pulled.image.repo_digests == (f"{registry.host}/multi@{digest}",)
    for text in ("linux/arm64", "arm64", "linux/arm64/v8", "linux/aarch64"):
        assert get(store, registry, "multi:1", platform=text).image.id == ids["arm64"]
    assert content(store, f"{registry.host}/multi:1", "which") == b"other"
    with pytest.raises(NotFound, match=r"for linux/s390x: there is one for: linux/amd64, linux/arm64/v8"):
        get(store, registry, "multi:1", platform="linux/s390x")
    with pytest.raises(UsageError, match="not a platform"):
        get(store, registry, "multi:1", platform="linux/amd64/v1/x")
    assert get(store, registry, "multi:1", platform="linux/amd64").image.id == ids["amd64"]


def test_a_lone_image_of_another_platform(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """It is refused if this platform was asked for."""
    put(registry, tmp_path, "lone:1", [APP])  # amd64
    with pytest.raises(NotFound, match=r"no image '.*lone:1' for linux/arm64: there is one for: linux/amd64"):
        get(store, registry, "lone:1", platform="linux/arm64")
    assert store.list() == []
    nothing_left(store)


# Names and digests --------------------------------------------------------------------------------------------------


def test_by_digest(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """name@digest finds it afterwards; it has no tag, and a second pull asks nobody."""
    digest = put(registry, tmp_path, "bydigest:1", [BASE])
    pulled = get(store, registry, f"bydigest@{digest}")
    assert pulled.image.names == ()
    assert store.resolve(f"{registry.host}/bydigest@{digest}").id == pulled.image.id
    before = len(registry.requests())
    assert not get(store, registry, f"bydigest@{digest}").changed
    assert len(registry.requests()) == before
    get(store, registry, "bydigest:1")
    assert store.resolve(f"{registry.host}/bydigest:1").id == pulled.image.id
    assert len(store.list()) == 1


def test_a_digest_of_an_image_that_has_a_name(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """The image that is here gets the digest as a further name."""
    digest = put(registry, tmp_path, "named:1", [BASE])
    put(registry, tmp_path, "second/named:1", [BASE])
    get(store, registry, "named:1")
    get(store, registry, f"second/named@{digest}")
    image = store.resolve(f"{registry.host}/second/named@{digest}")
    assert image.names == (f"{registry.host}/named:1",)
    assert len(image.repo_digests) == 2


def test_up_to_date_and_moved(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """A tag that has not moved costs a HEAD; one that has gives the new image, and the old one keeps no name."""
    put(registry, tmp_path, "moving:1", [BASE])
    first = get(store, registry, "moving:1")
    gets = len(registry.requests("GET", "/moving/"))
    again = get(store, registry, "moving:1")
    assert not again.changed
    assert (again.image.id, again.digest) == (first.image.id, first.digest)
    assert len(registry.requests("GET", "/moving/")) == gets
    put(registry, tmp_path, "moving:1", [BASE, APP])
    moved = get(store, registry, "moving:1")
    assert moved.changed
    assert moved.image.id != first.image.id
    assert store.resolve(first.image.id).names == ()
    blob = moved.image.layers[0].digest
    assert len(registry.requests("GET", f"/moving/blobs/{blob}")) == 1  # the layer was here already


def test_a_lost_layer_is_pulled_again(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """ "Up to date" is said only of an image that is whole."""
    put(registry, tmp_path, "whole:1", [BASE, APP])
    image = get(store, registry, "whole:1").image
    path = store.layout.blob(image.layers[1].digest)
    os.unlink(path)
    get(store, registry, "whole:1")
    assert os.path.exists(path)


def test_all_tags(registry: DockerRegistry, tmp_path: Path) -> None:
    """tags() lists a repository; one that is not there is not found."""
    for tag in ("a", "b", "c"):
        put(registry, tmp_path, f"tagged:{tag}", [APP])
    assert sorted(tags(refs.parse(f"{registry.host}/tagged"), configured(registry.host))) == ["a", "b", "c"]
    with pytest.raises(NotFound, match="tags of .*/nowhere: not found in the registry"):
        tags(refs.parse(f"{registry.host}/nowhere"), configured(registry.host))


# Mirrors ------------------------------------------------------------------------------------------------------------


def test_a_pull_through_mirror(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """It is asked first; what it does not have, or when it is down, comes from the registry."""
    put(registry, tmp_path, "mirrored:1", [BASE, APP])
    put(registry, tmp_path, "mirrored:2", [BASE])
    reference = refs.parse(f"{registry.host}/mirrored:1")
    with DockerRegistry(tmp_path / "cache", mirror_of=f"http://{registry.host}") as mirror:
        through = configured(registry.host, mirrors=[mirror.host])
        pulled = pull(store, reference, registries=through, patience=QUICK)
        assert pulled.image.names == (str(reference),)
        assert len(mirror.requests("GET", "/mirrored/blobs/")) == 3
    other = new_store(tmp_path / "other")
    assert pull(other, reference.replace(tag="2"), registries=through, patience=QUICK).image.names
    with DockerRegistry(tmp_path / "empty") as empty:
        beside = configured(registry.host, mirrors=[empty.host])
        third = new_store(tmp_path / "third")
        assert pull(third, reference, registries=beside, patience=QUICK).image.id == pulled.image.id
        with pytest.raises(NotFound) as caught:
            pull(third, reference.replace(tag="none"), registries=beside, patience=QUICK)
        assert f"the registry {registry.host} does not have it" in str(caught.value)
        assert any("mirror" in text for text in caught.value.__notes__)


# What goes wrong ----------------------------------------------------------------------------------------------------


def test_each_failure_has_its_own_words(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """No such repository, no such tag, nobody there, no such host, no TLS: the store is untouched."""
    put(registry, tmp_path, "words:1", [APP])
    cases = [
        (f"{registry.host}/nothing:1", None, "no such image '.*/nothing:1': the registry .* does not have it"),
        (f"{registry.host}/words:2", None, "no such image '.*/words:2': the registry .* does not have it"),
        (f"{registry.host}/words@sha256:{'0' * 64}", None, "the registry .* does not have it"),
        ("localhost:1/words:1", None, "registry localhost:1: connection refused"),
        ("registry.invalid/words:1", None, "registry registry.invalid: cannot resolve 'registry.invalid'"),
        (f"{registry.host}/words:1", False, "it does not speak TLS"),
    ]
    for name, insecure, words in cases:
        host = name.partition("/")[0]
        with pytest.raises(PyrunError, match=words) as caught:
            pull(store, refs.parse(name), registries=configured(host, insecure=insecure), patience=QUICK)
        assert "\n" not in str(caught.value)
    assert store.list() == []
    nothing_left(store)


# Interruptions ------------------------------------------------------------------------------------------------------

BIG = tars.tar(tars.member("big", data=random.Random(1).randbytes(24 << 20)))


class Interrupting(Progress):
    """Sends this process a signal once a megabyte or more is down."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent = False

    def advance(self, key: str, current: int) -> None:
        if current >= 1 << 20 and not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.number)
            time.sleep(0.5)  # the main thread gets the signal; this one would be done with the rest in no time


def interrupted(store: ImageStore, registry: DockerRegistry, name: str, number: int) -> int:
    """Pulls in a child that gets a signal in the middle; its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            get(store, registry, name, progress=Interrupting(number))
            code = 0
        except KeyboardInterrupt:
            code = 7
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_download_is_resumed(
    store: ImageStore, registry: DockerRegistry, tmp_path: Path, number: int
) -> None:
    """kill -9 and ^C leave what has come; the next pull fetches the rest by Range, and then nothing is left over."""
    name = f"big-{int(number)}:1"
    put(registry, tmp_path, name, [BIG, APP], pack="gzip")
    status = interrupted(store, registry, name, number)
    assert status == (signal.SIGKILL if number == signal.SIGKILL else 7 << 8)
    partials = os.listdir(f"{store.layout.path}/partial")
    there = {part: os.stat(f"{store.layout.path}/partial/{part}").st_size for part in partials}
    assert max(there.values()) >= 1 << 20
    assert store.list() == []
    if number == signal.SIGINT:
        assert os.listdir(f"{store.layout.path}/ingest") == []
    pulled = get(store, registry, name)
    assert content(store, f"{registry.host}/{name}", "app/main.py") == b"print()"
    digest = pulled.image.layers[0].digest
    lines = [line for line in registry.log.read_text().splitlines() if f"/blobs/{digest} " in line and '" ' in line]
    statuses = [line.partition('HTTP/1.1" ')[2].partition(" ")[0] for line in lines if 'HTTP/1.1" ' in line]
    assert statuses[-1] == "206"
    nothing_left(store)


def test_a_damaged_partial_is_noticed(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """What is in a partial file is hashed again: wrong bytes are fetched anew, and too many are dropped."""
    put(registry, tmp_path, "damaged:1", [BIG])
    oci, _ = made([BIG])
    store.layout.create()
    for number, junk in enumerate((b"\0" * 5000, b"x" * (40 << 20))):
        other = new_store(tmp_path / str(number))
        manifest = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/damaged:1"))
        Path(other.layout.partial(manifest["layers"][0]["digest"])).write_bytes(junk)
        get(other, registry, "damaged:1")
        assert len(content(other, f"{registry.host}/damaged:1", "big")) == 24 << 20
        nothing_left(other)
    assert oci.blobs


def test_several_pulls_at_once_share_the_work(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """Four processes pull one image into one store: all have it, and its big layer was sent once."""
    put(registry, tmp_path, "shared:1", [BIG, APP])
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                get(store, registry, "shared:1")
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    image = store.resolve(f"{registry.host}/shared:1")
    assert len(registry.requests("GET", f"/shared/blobs/{image.layers[0].digest}")) == 1
    assert len(content(store, f"{registry.host}/shared:1", "big")) == 24 << 20
    nothing_left(store)


def test_pulls_of_different_images_at_once(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """Threads that pull images with layers in common, while another removes one again and again."""
    for number in range(3):
        extra = tars.tar(tars.member(f"own-{number}", data=b"x"))
        put(registry, tmp_path, f"many:{number}", [BASE, APP, extra])
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                get(store, registry, f"many:{number}")
                if number == 0:
                    store.remove(f"{registry.host}/many:0")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for number in (1, 2):
        assert content(store, f"{registry.host}/many:{number}", f"own-{number}") == b"x"
    nothing_left(store)


def test_a_registry_that_comes_back(store: ImageStore, tmp_path: Path) -> None:
    """One that dies in the middle of a layer and starts again: the pull goes on where it was."""
    registry = DockerRegistry(tmp_path / "registry")
    with registry:
        put(registry, tmp_path, "dying:1", [BIG])
        blob = next(item for item in (tmp_path / "registry/storage").rglob("data") if item.stat().st_size > 1 << 20)
        assert blob.exists()

        class Killing(Progress):
            count = 0

            def advance(self, key: str, current: int) -> None:
                self.count += 1
                if self.count == 1:
                    registry.__exit__(None, None, None)
                    registry.__enter__()

        pulled = get(store, registry, "dying:1", progress=Killing(), patience=QUICK.replace(attempts=5))
        assert pulled.image.names


def test_killed_at_any_time(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """kill -9 again and again, at whatever it is doing: the store is always whole, and at last the pull succeeds."""
    put(registry, tmp_path, "killed:1", [BIG, APP])
    rng = random.Random(5)
    finished = 0
    for _ in range(12):
        child = os.fork()
        if child == 0:
            try:
                get(store, registry, "killed:1")
                os._exit(0)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0.0, 0.5))
        os.kill(child, signal.SIGKILL)
        finished += os.waitpid(child, 0)[1] == 0
        for image in store.list():
            assert content(store, image.names[0], "app/main.py") == b"print()"
    get(store, registry, "killed:1")
    assert len(content(store, f"{registry.host}/killed:1", "big")) == 24 << 20
    nothing_left(store)


def test_a_full_disk(registry: DockerRegistry, tmp_path: Path) -> None:
    """One line that says so; the space that the download took is given back."""
    put(registry, tmp_path, "full:1", [BIG])
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], check=True)
    try:
        store = new_store(small)
        with pytest.raises(PyrunError, match=r"pull .*full:1: no space left on device"):
            get(store, registry, "full:1")
        nothing_left(store)
        assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize > 7 << 20
    finally:
        subprocess.run(["umount", small], check=True)


# Peers --------------------------------------------------------------------------------------------------------------


@requires(tools=("podman",))
def test_what_podman_pushed(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """podman imports and pushes an image; pyrun pulls the same files and the same id."""
    (tmp_path / "root.tar").write_bytes(BASE)
    short = tempfile.mkdtemp(prefix="pyrun-")  # podman wants a short one
    podman = ["podman", "--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs"]
    full = f"{registry.host}/podman:1"
    for command in (
        [*podman, "import", f"{tmp_path}/root.tar", full],
        [*podman, "push", "--quiet", "--tls-verify=false", full],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    pulled = get(store, registry, "podman:1")
    shown = subprocess.run(
        [*podman, "image", "inspect", "--format", "{{.Id}}", full], capture_output=True, text=True, timeout=60
    )
    assert pulled.image.id == f"sha256:{shown.stdout.strip()}"
    assert content(store, full, "etc/passwd").startswith(b"root:")
    shutil.rmtree(short, ignore_errors=True)


def test_unreachable_is_told_soon(store: ImageStore) -> None:
    """Nobody there: refused within a second, no attempts that cannot help."""
    start = time.monotonic()
    with pytest.raises(Unreachable):
        pull(store, refs.parse("localhost:1/x"), registries=configured("localhost:1"))
    assert time.monotonic() - start < 5
