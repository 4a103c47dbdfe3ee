# SPDX-License-Identifier: Apache-2.0
"""A registry that lies: each lie ends in one clear line and an unchanged store.

CVE-2021-41190 (manifest or index), CVE-2024-3727 (unverified digests), and what else a client has to expect.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tars
from lying import LAYER, QUICK, get, layer_path, refused
from pyrun.rootfs import media
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.paths import Paths
from requires import requires
from scripted_registry import Image, Request, Scripted

pytestmark = requires(root=True)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))


# Digests and sizes --------------------------------------------------------------------------------------------------


def test_the_honest_server_is_believed(store: ImageStore, server: Scripted) -> None:
    """The tests below fail for their lie, not for the server: without one, the pull works."""
    image = server.image("app", "1", [LAYER])
    assert get(store, server).digest == image.digest


def test_a_manifest_with_another_digest(store: ImageStore, server: Scripted) -> None:
    """Asked for by digest, or told a digest in the header: the content must have it."""
    image = server.image("app", "1", [LAYER])
    other = server.image("app", "2", [LAYER, LAYER])
    server.on("GET", f"/manifests/{image.digest}", lambda r: r.answer(200, other.manifest, content_type=image.kind))
    refused(store, server, "manifest of .*: its content has another digest", f"@{image.digest}")
    server.on(
        "GET",
        "/manifests/1",
        lambda r: r.answer(200, image.manifest, content_type=image.kind, docker_content_digest=other.digest),
    )
    refused(store, server, "its content has another digest")


@pytest.mark.parametrize("what", ["layer", "config"])
def test_a_blob_with_another_digest(store: ImageStore, server: Scripted, what: str) -> None:
    """A byte of it flipped, the size right."""
    image = server.image("app", "1", [LAYER])
    data = image.layers[0] if what == "layer" else image.config
    server.blobs[tars.sha256(data)] = data[:-1] + bytes([data[-1] ^ 1])
    refused(store, server, "its content has another digest")


def test_a_layer_with_another_diff_id(store: ImageStore, server: Scripted) -> None:
    """The blob is what the manifest says, but what is in it is not what the config says."""
    config = server.blob(tars.config([tars.tar(tars.member("other"))]), media.OCI_CONFIG)
    server.image("app", "1", [LAYER], config=config)
    refused(store, server, "digest|diff")


@pytest.mark.parametrize("size", [1, 10_000_000])
def test_a_manifest_that_lies_about_a_size(store: ImageStore, server: Scripted, size: int) -> None:
    """A layer that is longer or shorter than its descriptor."""
    image = server.image("app", "1", [LAYER])
    packed = image.layers[0]
    descriptor = {"mediaType": media.LAYER_OF["gzip"], "digest": tars.sha256(packed), "size": size}
    server.image("app", "1", [LAYER], layers=[descriptor])
    refused(store, server, f"the registry has {len(packed)} bytes, and the manifest says {size}")


def test_bodies_that_end_too_early(store: ImageStore, server: Scripted) -> None:
    """A layer that is cut off each time is given up after some attempts that brought nothing."""
    image = server.image("app", "1", [LAYER])

    def short(request: Request) -> None:
        request.answer(200, content_length=str(len(image.layers[0])))
        request.wfile.write(image.layers[0][:1000])
        request.close_connection = True

    server.on("GET", layer_path(image), short)
    refused(store, server, r"(connection broke|cut off after 1000).*\(tried 3 times\)")

    def cut(request: Request) -> None:
        request.answer(200, b"{", content_length="99")
        request.close_connection = True

    server.on("GET", "/manifests/1", cut)
    refused(store, server, r"(connection broke|cut off).*\(tried 3 times\)")


def test_a_config_longer_than_announced(store: ImageStore, server: Scripted) -> None:
    """It may have the bytes that the manifest says, and none more."""
    image = server.image("app", "1", [LAYER])
    path = f"/blobs/{tars.sha256(image.config)}"
    server.on("GET", path, lambda r: r.answer(200, image.config + b" " * 100))
    refused(store, server, "more than the [0-9]+ that are allowed")
    server.on("GET", path, lambda r: r.endless(b" " * 1000))
    refused(store, server, "larger than the [0-9]+ bytes that are allowed")


# Endless and huge ---------------------------------------------------------------------------------------------------


def test_endless_bodies(store: ImageStore, server: Scripted) -> None:
    """Of a manifest, of a layer, of an error page: read to a bound and no further."""
    image = server.image("app", "1", [LAYER])
    server.on("GET", layer_path(image), lambda r: r.endless(bytes(100_000)))
    refused(store, server, "the registry sends more than the [0-9]+ bytes it must have")
    server.on("GET", "/manifests/1", lambda r: r.endless(b" " * 100_000, content_type=image.kind))
    refused(store, server, "manifest of .*: larger than the [0-9]+ bytes that are allowed")
    server.on("GET", "/manifests/1", lambda r: r.endless(b" " * 100_000, status=403))
    refused(store, server, r"access denied \(403\)")


def test_a_huge_manifest(store: ImageStore, server: Scripted) -> None:
    """A gigabyte announced is not even begun; megabytes of blanks are no manifest."""
    image = server.image("app", "1", [LAYER])
    server.on("GET", "/manifests/1", lambda r: r.answer(200, content_length=str(1 << 30), content_type=image.kind))
    refused(store, server, "manifest of .*: 1073741824 bytes, more than the [0-9]+ that are allowed")
    data = b" " * (9 << 20) + image.manifest
    server.on("GET", "/manifests/1", lambda r: r.answer(200, data, content_type=image.kind))
    refused(store, server, "bytes, more than the [0-9]+ that are allowed")


def test_a_dripping_server(store: ImageStore, server: Scripted) -> None:
    """One byte now and then keeps no pull busy for ever."""
    image = server.image("app", "1", [LAYER])

    def drip(request: Request, data: bytes) -> None:
        request.answer(200, content_length=str(len(data)), content_type=image.kind)
        for byte in data:
            request.wfile.write(bytes([byte]))
            request.wfile.flush()
            time.sleep(0.05)

    server.on("GET", "/manifests/1", lambda r: drip(r, image.manifest))
    refused(store, server, r"the registry did not finish it in 1 s")
    server.on("GET", "/manifests/1", lambda r: r.answer(200, image.manifest, content_type=image.kind))
    server.on("GET", layer_path(image), lambda r: drip(r, image.layers[0]))
    refused(store, server, r"the connection has stalled \(tried 3 times\)")


def test_silence(store: ImageStore, server: Scripted) -> None:
    """A server that accepts and says nothing."""
    server.on("GET", "/manifests/1", lambda r: time.sleep(3))
    refused(store, server, r"no answer for 1 s \(tried 3 times\)")


# Documents ----------------------------------------------------------------------------------------------------------

SCHEMA1 = b'{"schemaVersion": 1, "name": "app", "fsLayers": []}'
WRONG: dict[str, tuple[bytes, str, str]] = {
    "not JSON": (b"{", media.OCI_MANIFEST, "not JSON"),
    "HTML": (b"<html>", "text/html", "not JSON"),
    "a list": (b"[]", media.OCI_MANIFEST, "not an object"),
    "NaN": (b'{"schemaVersion": NaN}', media.OCI_MANIFEST, "not JSON"),
    "deep": (b"[" * 100_000, media.OCI_MANIFEST, "not JSON"),
    "no UTF-8": (b'{"a": "\xff"}', media.OCI_MANIFEST, "not JSON"),
    "nothing": (b"{}", media.OCI_MANIFEST, "its content is something else|missing"),
    "schema 1": (SCHEMA1, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
    "schema 1 in disguise": (SCHEMA1, media.OCI_MANIFEST, "schema 1"),
    "another type": (b'{"schemaVersion": 2, "mediaType": "application/zip"}', "application/zip", "no image manifest"),
}


@pytest.mark.parametrize(("data", "kind", "words"), WRONG.values(), ids=WRONG)
def test_what_is_no_manifest(store: ImageStore, server: Scripted, data: bytes, kind: str, words: str) -> None:
    """Each is named for what it is."""
    server.document("app", "1", data, kind)
    refused(store, server, words)


def test_type_confusion(store: ImageStore, server: Scripted) -> None:
    """CVE-2021-41190: a document that is a manifest to one and an index to another."""
    image = server.image("app", "1", [LAYER])
    manifest = json.loads(image.manifest)
    entry = {"mediaType": media.OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest)}
    for value, kind, words in (
        (manifest, media.OCI_INDEX, "the registry calls it .*, and it calls itself"),
        ({**manifest, "mediaType": media.OCI_INDEX}, media.OCI_INDEX, "its content is something else"),
        ({**manifest, "manifests": [entry]}, media.OCI_MANIFEST, "an index and a manifest at once"),
        ({key: manifest[key] for key in ("config", "layers")}, media.OCI_INDEX, "its content is something else"),
        ({"manifests": [entry]}, media.OCI_MANIFEST, "its content is something else"),
    ):
        server.document("app", "1", json.dumps(value).encode(), kind)
        refused(store, server, words)


def test_what_is_no_image(store: ImageStore, server: Scripted) -> None:
    """An artifact, an encrypted layer, a layer of an unknown type."""
    image = server.image("app", "1", [LAYER])
    manifest = json.loads(image.manifest)
    helm = {**manifest["config"], "mediaType": "application/vnd.cncf.helm.config.v1+json"}
    layer = manifest["layers"][0]
    for fields, words in (
        ({"config": helm}, "is no image: it is an artifact of type application/vnd.cncf.helm.config"),
        ({"artifactType": "text/x-sbom"}, "is no image: it is an artifact of type text/x-sbom"),
        ({"layers": [{**layer, "mediaType": layer["mediaType"] + "+encrypted"}]}, "its layers are encrypted"),
        ({"layers": [{**layer, "mediaType": "text/plain"}]}, "is of type 'text/plain', and no layer"),
        ({"layers": [{**layer, "digest": "sha256:../../etc/passwd"}]}, "not a sha256 digest"),
        ({"layers": [{**layer, "size": -1}]}, "not a size"),
        ({"layers": [{**layer, "size": 1e300}]}, "not a size"),
        ({"layers": []}, "the manifest has 0 layers"),
        ({"config": None}, "missing"),
    ):
        server.document("app", "1", json.dumps({**manifest, **fields}).encode(), media.OCI_MANIFEST)
        refused(store, server, words)


def test_a_config_that_is_none(store: ImageStore, server: Scripted) -> None:
    """Right by digest, and still no config."""
    for data in (b"{", b"[]", b"null", b'{"rootfs": {"diff_ids": "x"}}', b"[" * 50_000):
        server.image("app", "1", [LAYER], config=server.blob(data, media.OCI_CONFIG))
        refused(store, server, "not JSON|not an object|missing|not an array")


def test_indexes_that_go_in_circles(store: ImageStore, server: Scripted) -> None:
    """One that names itself, and a chain of them that does not end."""

    def index(digest: str, size: int) -> bytes:
        entry = {"mediaType": media.OCI_INDEX, "digest": digest, "size": size}
        return json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [entry]}).encode()

    own = index("sha256:" + "0" * 64, 1)
    server.on("GET", f"/manifests/sha256:{'0' * 64}", lambda r: r.answer(200, own, content_type=media.OCI_INDEX))
    server.document("app", "1", own, media.OCI_INDEX)
    refused(store, server, "its content has another digest")
    image = server.image("app", "2", [LAYER])
    digest, size = image.digest, len(image.manifest)
    for _ in range(6):
        data = index(digest, size)
        digest, size = server.document("app", "1", data, media.OCI_INDEX), len(data)
    refused(store, server, "nested more than 3 deep")


def test_an_index_that_lies(store: ImageStore, server: Scripted) -> None:
    """About the size or the type of what it names; one without anything in it."""
    image = server.image("app", "2", [LAYER])
    platform = {"os": "linux", "architecture": "amd64"}
    entry = {"mediaType": image.kind, "digest": image.digest, "size": len(image.manifest), "platform": platform}
    for entries, words in (
        ([{**entry, "size": 7}], "another size or type than the index says"),
        ([{**entry, "size": 1 << 40}], "bytes, more than the [0-9]+ allowed"),
        ([{**entry, "mediaType": media.DOCKER_MANIFEST}], "another size or type than the index says"),
        ([{**entry, "digest": "sha256:x"}], "not a digest"),
        ([], "its index lists no image at all"),
        ([{**entry, "platform": "linux"}], "not an object"),
    ):
        value = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}
        server.document("app", "1", json.dumps(value).encode(), media.OCI_INDEX)
        refused(store, server, words)


def test_words_that_steer_a_terminal(store: ImageStore, server: Scripted) -> None:
    """What the server says is shown, as one harmless line of bounded length."""
    text = "\x1b]0;pwned\x07\x1b[2J\nroot# \u202e" + "x" * 10_000
    body = json.dumps({"errors": [{"code": "DENIED", "message": text}]}).encode()
    server.on("GET", "/manifests/1", lambda r: r.answer(403, body))
    error = refused(store, server, "access denied .*pwned")
    assert len(str(error)) < 400


# Failures that pass, and those that do not --------------------------------------------------------------------------


def test_too_many_requests_then_success(store: ImageStore, server: Scripted) -> None:
    """429 with Retry-After is waited for; one that asks for an hour is told at once."""
    image = server.image("app", "1", [LAYER])
    left = [1, 1]

    def busy(request: Request) -> None:
        if left:
            left.pop()
            request.answer(429, retry_after="1")
        else:
            server.honest(request)

    server.on("GET", "/manifests/1", busy)
    start = time.monotonic()
    assert get(store, server).digest == image.digest
    assert time.monotonic() - start >= 2
    store.remove(f"{server.host}/app:1")
    server.on("GET", "/manifests/1", lambda r: r.answer(429, b'{"errors":[{"message":"slow"}]}', retry_after="3600"))
    start = time.monotonic()
    refused(store, server, r"too many requests \(429\): slow")
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_failing_for_ever(store: ImageStore, server: Scripted, status: int) -> None:
    """Tried as often as it should be, then told."""
    server.on("GET", "/manifests/1", lambda r: r.answer(status))
    refused(store, server, str(status))
    assert len(server.requests("GET", "/manifests/1")) == QUICK.attempts


def test_a_reset_in_the_middle_is_resumed(store: ImageStore, server: Scripted) -> None:
    """The rest is asked for by Range, three times over."""
    image = server.image("app", "1", [LAYER])
    data = image.layers[0]

    def reset(request: Request) -> None:
        wanted = request.headers.get("Range", "bytes=0-")
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start > len(data) - 50_000:
            request.part(data)
            return
        extra = {"content_range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        request.answer(206 if start else 200, content_length=str(len(data) - start), **extra)
        request.wfile.write(data[start : start + 80_000])
        request.wfile.flush()
        time.sleep(0.1)  # a reset throws away what has not been read yet
        request.reset()

    server.on("GET", layer_path(image), reset)
    assert get(store, server).digest == image.digest
    ranges = [seen.headers.get("range", "") for seen in server.requests("GET", layer_path(image))]
    assert ranges[0] == ""
    assert len(ranges) >= 3
    assert all(text.startswith("bytes=") for text in ranges[1:])


def lying_range(store: ImageStore, server: Scripted, answer: Callable[[Request, bytes, int], None]) -> Image:
    """A server that resets the first answer in the middle, and answers Range requests by `answer`."""
    image = server.image("app", "1", [LAYER])
    data = image.layers[0]

    def handle(request: Request) -> None:
        wanted = request.headers.get("Range", "")
        if wanted:
            answer(request, data, int(wanted.removeprefix("bytes=").rstrip("-")))
        elif len(server.requests("GET", layer_path(image))) > 1:
            request.answer(200, data)
        else:
            request.answer(200, content_length=str(len(data)))
            request.wfile.write(data[:100_000])
            request.wfile.flush()
            time.sleep(0.1)
            request.reset()

    server.on("GET", layer_path(image), handle)
    return image


RANGES: dict[str, Callable[[Request, bytes, int], None]] = {
    "ignored": lambda r, data, start: r.answer(200, data),
    "misplaced": lambda r, data, start: r.answer(
        206, data[start + 1 :], content_range=f"bytes {start + 1}-{len(data) - 1}/{len(data)}"
    ),
    "from the start": lambda r, data, start: r.answer(206, data, content_range=f"bytes 0-{len(data) - 1}/{len(data)}"),
    "of something else": lambda r, data, start: r.answer(206, b"x" * 10, content_range=f"bytes {start}-9/10"),
    "nonsense": lambda r, data, start: r.answer(206, data[start:], content_range="bytes ½-²/x"),
    "no header": lambda r, data, start: r.answer(206, data[start:]),
    "not satisfiable": lambda r, data, start: r.answer(416),
    "other bytes": lambda r, data, start: r.answer(
        206, bytes(len(data) - start), content_range=f"bytes {start}-{len(data) - 1}/{len(data)}"
    ),
}


@pytest.mark.parametrize("answer", RANGES.values(), ids=RANGES)
def test_ranges_that_lie(store: ImageStore, server: Scripted, answer: Callable[[Request, bytes, int], None]) -> None:
    """What does not continue where it should is not used: the layer is fetched from its start, and is right."""
    image = lying_range(store, server, answer)
    assert get(store, server).digest == image.digest
    assert len(server.requests("GET", layer_path(image))) <= 4


def test_garbage_on_the_wire(store: ImageStore, server: Scripted) -> None:
    """No HTTP at all; a status line of megabytes; a chunk that has no size."""

    def raw(data: bytes) -> Callable[[Request], None]:
        def answer(request: Request) -> None:
            request.wfile.write(data)
            request.close_connection = True

        return answer

    for data in (
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 " + b"x" * (1 << 20) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"\0" * 100,
    ):
        server.on("GET", "/manifests/1", raw(data))
        refused(store, server, "registry|manifest")


def test_a_bomb_in_a_layer(store: ImageStore, server: Scripted) -> None:
    """Right by digest and size, and a thousand times as much once it is unpacked: the caps hold."""
    store.limits = store.limits.replace(max_bytes=8 << 20)
    plain = tars.tar(tars.member("zeros", data=bytes(16 << 20)))
    image: Any = server.image("app", "1", [plain])
    assert len(gzip.decompress(image.layers[0])) > store.limits.max_bytes
    refused(store, server, "more than 8388608 bytes")
