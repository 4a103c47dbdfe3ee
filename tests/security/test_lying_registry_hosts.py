# SPDX-License-Identifier: Apache-2.0
"""A registry that lies about where to go: no secret leaves for another host, nothing but http and https is asked.

CVE-2020-15157 (credentials to a foreign host) and its kind.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tars
from lying import LAYER, QUICK, SECRET, assert_unchanged, get, layer_path, refused
from pyrun.rootfs import media, refs
from pyrun.rootfs.registry.config import Endpoint
from pyrun.rootfs.registry.credentials import Credentials
from pyrun.rootfs.registry.pull import tags
from pyrun.rootfs.registry.push import push
from pyrun.rootfs.registry.transport import ping
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.paths import Paths
from registries import configured, make_authority
from requires import requires
from scripted_registry import Request, Scripted

pytestmark = requires(root=True, tools=("openssl",))


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes docker's config.json with credentials for a host."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    (tmp_path / "docker").mkdir()

    def write(host: str, **entry: str) -> None:
        fields = entry or {"auth": base64.b64encode(f"alice:{SECRET}".encode()).decode()}
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {host: fields}}))

    return write


# Redirects and credentials ------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[Scripted]:
    """Another host: another port is another origin."""
    with Scripted() as running:
        yield running


def asks_for_basic(server: Scripted) -> None:
    """From now on the server wants the password of alice."""
    expected = "Basic " + base64.b64encode(f"alice:{SECRET}".encode()).decode()

    def gate(request: Request) -> bool:
        if request.headers.get("Authorization") == expected:
            return True
        request.answer(401, www_authenticate='Basic realm="x"')
        return False

    server.gate = gate


def test_a_redirect_to_another_host_carries_no_credentials(
    store: ImageStore, server: Scripted, other: Scripted, login: Callable[..., None]
) -> None:
    """Blobs often lie elsewhere: they are fetched there, and no Authorization header goes along."""
    login(server.host)
    asks_for_basic(server)
    image = server.image("app", "1", [LAYER])
    other.blobs = dict(server.blobs)
    server.on("GET", layer_path(image), lambda r: r.answer(307, location=f"http://{other.host}{r.path}"))
    assert get(store, server).digest == image.digest
    assert len(other.seen) == 1
    assert "authorization" not in other.seen[0].headers
    assert SECRET not in str(other.seen)
    assert all("authorization" in seen.headers for seen in server.requests("GET", "/blobs/"))


def test_a_host_that_asks_after_a_redirect_gets_nothing(
    store: ImageStore, server: Scripted, other: Scripted, login: Callable[..., None]
) -> None:
    """CVE-2020-15157: the other host's challenge is answered with no secret of the registry's."""
    login(server.host)
    image = server.image("app", "1", [LAYER])
    challenge = f'Bearer realm="http://{other.host}/token",service="x"'
    other.on("GET", "/", lambda r: r.answer(401, www_authenticate=f'{challenge}, Basic realm="x"'))
    server.on("GET", layer_path(image), lambda r: r.answer(302, location=f"http://{other.host}/x"))
    refused(store, server, "access denied")
    assert len(other.seen) == 1
    assert "authorization" not in other.seen[0].headers


def test_a_mirror_gets_no_credentials_of_the_registry(
    store: ImageStore, server: Scripted, other: Scripted, login: Callable[..., None]
) -> None:
    """One that asks for a password is given none, told no token server's, and passed over."""
    login(server.host)
    asks_for_basic(server)
    image = server.image("app", "1", [LAYER])
    other.on("GET HEAD", "/v2/app", lambda r: r.answer(401, www_authenticate='Basic realm="x"'))
    registries = configured(server.host, mirrors=[other.host])
    assert get(store, server, registries=registries).digest == image.digest
    assert other.seen
    assert all("authorization" not in seen.headers for seen in other.seen)


def test_a_mirror_that_lies(store: ImageStore, server: Scripted, other: Scripted) -> None:
    """Its layer is not what the manifest says: the registry's is taken, and nothing of the mirror's is kept."""
    image = server.image("app", "1", [LAYER])
    other.image("app", "1", [LAYER])
    data = image.layers[0]
    other.blobs[tars.sha256(data)] = bytes(len(data))
    registries = configured(server.host, mirrors=[other.host])
    assert get(store, server, registries=registries).digest == image.digest
    assert len(other.requests("GET", layer_path(image))) == 1
    assert len(server.requests("GET", layer_path(image))) == 1


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "unix:/run/x", "http://", "//", "x:y"]
)
def test_redirects_to_other_schemes(store: ImageStore, server: Scripted, target: str) -> None:
    """Only http and https are ever asked."""
    image = server.image("app", "1", [LAYER])
    server.on("GET", layer_path(image), lambda r: r.answer(302, location=target))
    refused(store, server, "which is no http or https address|not have it|redirects more than 5 times")


def test_redirects_that_do_not_end(store: ImageStore, server: Scripted) -> None:
    """A circle is left after a few rounds."""
    image = server.image("app", "1", [LAYER])
    server.on("GET", layer_path(image), lambda r: r.answer(302, location=r.path))
    refused(store, server, "it redirects more than 5 times")
    assert len(server.requests("GET", layer_path(image))) < 20


def test_no_redirect_from_https_to_http(store: ImageStore, other: Scripted, tmp_path: Path) -> None:
    """What began encrypted stays so."""
    authority = make_authority(tmp_path / "authority")
    with Scripted(authority=authority) as server:
        image = server.image("app", "1", [LAYER])
        server.on("GET", layer_path(image), lambda r: r.answer(302, location=f"http://{other.host}/x"))
        registries = configured(server.host, ca=authority.ca)
        with pytest.raises(PyrunError, match=f"it redirects to http://{other.host}, which is not encrypted"):
            get(store, server, registries=registries)
        assert other.seen == []
        assert_unchanged(store)


def asks_for_token(server: Scripted, realm: str) -> None:
    """From now on the server wants a token of this realm."""

    def gate(request: Request) -> bool:
        if request.path.startswith("/token") or request.headers.get("Authorization") == "Bearer t0ken":
            return True
        request.answer(401, www_authenticate=f'Bearer realm="{realm}",service="s",scope="repository:app:pull"')
        return False

    server.gate = gate


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("http://tokens.example/token", "its token server http://tokens.example is not encrypted: nothing was sent"),
        ("file:///etc/passwd", "is no http or https address"),
        ("", "is no http or https address"),
        ("/token", "is no http or https address"),
    ],
)
def test_token_servers_that_are_not_asked(
    store: ImageStore, server: Scripted, login: Callable[..., None], realm: str, words: str
) -> None:
    """A realm on another host over http would get the password in plain text."""
    login(server.host)
    server.image("app", "1", [LAYER])
    asks_for_token(server, realm)
    refused(store, server, words)


def test_a_plain_token_server_of_an_encrypted_registry(
    other: Scripted, login: Callable[..., None], store: ImageStore, tmp_path: Path
) -> None:
    """Not even on the same machine."""
    authority = make_authority(tmp_path / "authority")
    with Scripted(authority=authority) as server:
        login(server.host)
        server.image("app", "1", [LAYER])
        asks_for_token(server, f"http://{other.host}/token")
        with pytest.raises(PyrunError, match="is not encrypted: nothing was sent there"):
            get(store, server, registries=configured(server.host, ca=authority.ca))
        assert other.seen == []


def test_token_answers_that_lie(store: ImageStore, server: Scripted, login: Callable[..., None]) -> None:
    """No token in it, one that would break out of its header, an endless one, a failing server, a denial."""
    login(server.host)
    server.image("app", "1", [LAYER])
    asks_for_token(server, f"http://{server.host}/token")
    for body, words in (
        (b"{}", "its answer has no token"),
        (b"[]", "not an object"),
        (b"{", "not JSON"),
        (b'{"token": ""}', "its answer has no token"),
        (b'{"token": "a\\r\\nX-Evil: 1"}', "its answer has no token"),
        (b'{"token": 7}', "its answer has no token"),
        (b'{"token": "wrong"}', "access denied for user alice"),
    ):
        server.on("GET", "/token", lambda r, body=body: r.answer(200, body))  # type: ignore[misc]
        refused(store, server, words)
    server.on("GET", "/token", lambda r: r.endless(b" " * 100_000))
    refused(store, server, "token server of .*: larger than")
    server.on("GET", "/token", lambda r: r.answer(500))
    refused(store, server, r"its token server: registry .*: it failed \(500\)")
    server.on("GET", "/token", lambda r: r.answer(401))
    refused(store, server, "access denied for user alice")


def test_a_challenge_without_end(store: ImageStore, server: Scripted, login: Callable[..., None]) -> None:
    """401 whatever is sent: a few requests, then access denied; a scheme nobody knows."""
    login(server.host)
    server.on("GET", "/v2/app", lambda r: r.answer(401, www_authenticate='Basic realm="x"'))
    refused(store, server, "access denied for user alice")
    assert len(server.requests("GET", "/v2/app")) <= 3
    for header in ("Negotiate", "", "Bearer", 'Basic"', "=,=;", 'Bearer realm="' + "x" * 5000):
        server.on("GET", "/v2/app", lambda r, header=header: r.answer(401, www_authenticate=header))  # type: ignore[misc]
        refused(store, server, "no way to log in|no http or https address|access denied")


def test_foreign_layers(store: ImageStore, server: Scripted, other: Scripted, login: Callable[..., None]) -> None:
    """Layers that lie elsewhere by their manifest: http only, verified, without credentials."""
    login(server.host)
    asks_for_basic(server)
    image = server.image("app", "1", [LAYER])
    packed = image.layers[0]
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    descriptor = {"mediaType": kind, "digest": tars.sha256(packed), "size": len(packed)}
    del server.blobs[tars.sha256(packed)]
    server.image("app", "1", [LAYER], layers=[{**descriptor, "urls": ["file:///etc/passwd"]}])
    del server.blobs[tars.sha256(packed)]
    refused(store, server, "it is to come from 'file:///etc/passwd': no http or https address")
    other.on("GET", "/layer", lambda r: r.part(packed))
    urls = [f"http://{other.host}/nothing", f"http://{other.host}/layer"]
    manifest = {**json.loads(image.manifest), "layers": [{**descriptor, "urls": urls}]}
    server.document("app", "1", json.dumps(manifest).encode(), media.OCI_MANIFEST)
    assert get(store, server).changed
    assert all("authorization" not in seen.headers for seen in other.seen)


# Lists and pushes ---------------------------------------------------------------------------------------------------


def test_pages_of_tags(server: Scripted, other: Scripted) -> None:
    """The list goes on at its Link, on this host only, and never in a circle."""
    reference, registries = refs.parse(f"{server.host}/app"), configured(server.host)

    def page(request: Request) -> None:
        if "last=b" in request.path:
            request.answer(200, b'{"name":"app","tags":["c", "\\u001b[2J", "../x"]}')
        else:
            request.answer(200, b'{"name":"app","tags":["a","b"]}', link='</v2/app/tags/list?last=b&n=2>; rel="next"')

    server.on("GET", "/tags/list", page)
    assert tags(reference, registries, patience=QUICK) == ["a", "b", "c"]
    for link in (f'<http://{other.host}/x>; rel="next"', '</v2/app/tags/list>; rel="next"', '<file:///x>; rel="next"'):
        server.on("GET", "/tags/list", lambda r, link=link: r.answer(200, b'{"tags":["a"]}', link=link))  # type: ignore[misc]
        with pytest.raises(PyrunError, match="next page is not to be trusted"):
            tags(reference, registries, patience=QUICK)
    assert other.seen == []


def loaded(store: ImageStore) -> None:
    oci = tars.Oci()
    oci.name(oci.manifest([LAYER], gz=True), "docker.io/library/mine:1")
    import io

    store.load(io.BytesIO(oci.archive()))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "", "ftp://127.0.0.1/"])
def test_uploads_that_lead_elsewhere(store: ImageStore, server: Scripted, location: str) -> None:
    """An upload's Location has to be http or https."""
    loaded(store)
    server.on("POST", "/uploads/", lambda r: r.answer(202, location=location))
    with pytest.raises(PyrunError, match="no http or https address"):
        push(store, "mine:1", refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK)
    assert store.resolve("mine:1").repo_digests == ()


def test_an_upload_elsewhere_carries_no_credentials(
    store: ImageStore, server: Scripted, other: Scripted, login: Callable[..., None]
) -> None:
    """The bytes may go to a storage service; the password stays."""
    login(server.host)
    asks_for_basic(server)
    loaded(store)
    server.on("POST", "/uploads/", lambda r: r.answer(202, location=f"http://{other.host}/put/blobs/uploads/1"))
    push(store, "mine:1", refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK)
    assert len(other.requests("PUT")) == 2
    assert all("authorization" not in seen.headers for seen in other.seen)


def test_a_registry_that_takes_the_manifest_for_another(store: ImageStore, server: Scripted) -> None:
    """Its digest in the answer has to be the one that was pushed."""
    loaded(store)
    wrong = "sha256:" + "0" * 64
    server.on("PUT", "/manifests/", lambda r: r.answer(201, docker_content_digest=wrong))
    with pytest.raises(PyrunError, match="the registry took it for sha256:000"):
        push(store, "mine:1", refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK)
    assert store.resolve("mine:1").repo_digests == ()


def test_a_web_server_is_no_registry(server: Scripted) -> None:
    """`login` says so."""
    server.on("GET", "/v2/", lambda r: r.answer(404, b"<html>"))
    endpoint = Endpoint(server.host, schemes=("http",))
    with pytest.raises(PyrunError, match="it is a web server, and no registry"):
        ping(endpoint, Credentials("alice", SECRET), patience=QUICK)
