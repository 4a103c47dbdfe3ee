# SPDX-License-Identifier: Apache-2.0
"""What the real docker-registry does not do on its own: tokens, uploads that break or must go in pieces, proxies."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import tars
from pyrun.rootfs import refs
from pyrun.rootfs.registry.pull import pull
from pyrun.rootfs.registry.push import Pushed, push
from pyrun.rootfs.registry.sockets import Patience
from pyrun.rootfs.registry.upload import PIECE
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.paths import Paths
from registries import configured
from requires import requires
from scripted_registry import Request, Scripted, Seen

pytestmark = requires(root=True)

LAYER = tars.tar(tars.member("file", data=os.urandom(300_000)))
QUICK = Patience(attempts=3, first_delay_s=0.02, read_s=3.0, connect_s=2.0, longest_delay_s=2.0)
SECRET = "opensesame"


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    return ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))


def login(tmp_path: Path, host: str, **entry: str) -> None:
    """Credentials in docker's own file."""
    fields = entry or {"auth": base64.b64encode(f"alice:{SECRET}".encode()).decode()}
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {host: fields}}))


def load(store: ImageStore, layers: list[bytes], *, gz: bool = True) -> None:
    """The image mine:1."""
    if gz:
        oci = tars.Oci()
        oci.name(oci.manifest(layers, gz=True), "docker.io/library/mine:1")
        store.load(io.BytesIO(oci.archive()))
    else:
        store.load(io.BytesIO(tars.docker_archive(layers, ["mine:1"])))


def send(store: ImageStore, server: Scripted, name: str = "app:1") -> Pushed:
    reference = refs.parse(f"{server.host}/{name}")
    return push(store, "mine:1", reference, registries=configured(server.host), patience=QUICK)


# Tokens -------------------------------------------------------------------------------------------------------------


class Tokens:
    """A token server beside a registry: what it gave, and for what."""

    def __init__(self, server: Scripted, life_s: int = 300) -> None:
        self.given: dict[str, set[str]] = {}
        self.asked: list[Seen] = []
        self.server = server
        self.life_s = life_s
        server.gate = self.gate
        server.on("GET POST", "/token", self.answer)

    def answer(self, request: Request) -> None:
        form = parse_qs(request.body.decode() if request.command == "POST" else urlsplit(request.path).query)
        scopes = {scope for text in form.get("scope", []) for scope in text.split()}
        token = f"token-{len(self.given)}"
        self.given[token] = scopes
        self.asked.append(self.server.requests(request.command, "/token")[-1])
        key = "access_token" if request.command == "POST" else "token"
        request.answer(200, json.dumps({key: token, "expires_in": self.life_s}).encode())

    def gate(self, request: Request) -> bool:
        """Lets a request through if its token is for what it wants to do."""
        if request.path.startswith("/token"):
            return True
        name = request.path.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
        action = "pull" if request.command in ("GET", "HEAD") else "push"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        actions = {
            one
            for scope in self.given.get(token, set())
            if scope.startswith(f"repository:{name}:")
            for one in scope.rpartition(":")[2].split(",")
        }
        if action in actions:
            return True
        scope = f"repository:{name}:{'pull' if action == 'pull' else 'pull,push'}"
        challenge = f'Bearer realm="http://{self.server.host}/token",service="a service",scope="{scope}"'
        request.answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', www_authenticate=challenge)
        return False


def test_an_anonymous_token(store: ImageStore, server: Scripted) -> None:
    """One token serves the whole pull, whose layers are fetched side by side."""
    server.image("app", "1", [tars.tar(tars.member(f"f{n}", data=os.urandom(50_000))) for n in range(6)])
    tokens = Tokens(server)
    pull(store, refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK, jobs=4)
    assert len(tokens.asked) == 1
    query = parse_qs(urlsplit(tokens.asked[0].path).query)
    assert query == {"service": ["a service"], "scope": ["repository:app:pull"]}
    assert "authorization" not in tokens.asked[0].headers


def test_a_token_for_a_user(store: ImageStore, server: Scripted, tmp_path: Path) -> None:
    """The password goes to the token server only, never to the registry."""
    login(tmp_path, server.host)
    server.image("app", "1", [LAYER])
    tokens = Tokens(server)
    pull(store, refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK)
    expected = "Basic " + base64.b64encode(f"alice:{SECRET}".encode()).decode()
    assert tokens.asked[0].headers["authorization"] == expected
    for seen in server.seen:
        if not seen.path.startswith("/token"):
            assert not seen.headers.get("authorization", "").startswith("Basic")


def test_an_identity_token(store: ImageStore, server: Scripted, tmp_path: Path) -> None:
    """It is a refresh token of the OAuth form, sent by POST."""
    login(tmp_path, server.host, identitytoken="r3fresh", auth=base64.b64encode(b"<token>:").decode())
    server.image("app", "1", [LAYER])
    tokens = Tokens(server)
    pull(store, refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK)
    form = parse_qs(tokens.asked[0].body.decode())
    assert tokens.asked[0].method == "POST"
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["r3fresh"]
    assert form["client_id"] == ["pyrun"]


def test_a_token_server_of_the_newer_form_only(store: ImageStore, server: Scripted, tmp_path: Path) -> None:
    """One that knows no GET gets the password by POST."""
    login(tmp_path, server.host)
    server.image("app", "1", [LAYER])
    tokens = Tokens(server)
    server.on("GET", "/token", lambda request: request.answer(405))
    pull(store, refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK)
    form = parse_qs(tokens.asked[0].body.decode())
    assert (form["grant_type"], form["username"], form["password"]) == (["password"], ["alice"], [SECRET])


def test_tokens_that_end_soon(store: ImageStore, server: Scripted) -> None:
    """One that has ended is replaced."""
    image = server.image("app", "1", [LAYER])
    tokens = Tokens(server, life_s=1)

    def slow(request: Request) -> None:
        time.sleep(1.2)
        server.honest(request)

    server.on("GET", "/manifests/", slow)
    pulled = pull(store, refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK)
    assert pulled.digest == image.digest
    assert len(tokens.asked) >= 2


def test_a_token_that_is_revoked(store: ImageStore, server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was good for a while and is refused now is replaced once."""
    from pyrun.rootfs.registry import auth

    monkeypatch.setattr(auth, "FRESH_S", 0.0)  # "a while"
    image = server.image("app", "1", [LAYER])
    tokens = Tokens(server)

    def revoking(request: Request) -> None:
        tokens.given.clear()
        tokens.given["none"] = set()
        server.honest(request)

    server.on("GET", "/manifests/", revoking)
    pulled = pull(store, refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK)
    assert pulled.digest == image.digest
    assert len(tokens.asked) == 2


def test_a_push_asks_for_all_it_needs_at_once(store: ImageStore, server: Scripted) -> None:
    """pull,push for the repository; pull of the repository that a layer is mounted from."""
    load(store, [LAYER])
    send(store, server, "first:1")
    server.blobs.clear()  # this server has one place for all repositories
    tokens = Tokens(server)
    send(store, server, "second:1")
    assert len(tokens.asked) == 1
    assert tokens.given["token-0"] == {"repository:second:pull,push", "repository:first:pull"}
    assert any("?mount=" in seen.path and "from=first" in seen.path for seen in server.requests("POST"))


# Uploads ------------------------------------------------------------------------------------------------------------

BIG = tars.tar(tars.member("big", data=random.Random(4).randbytes(PIECE + (5 << 20))))


class Sessions:
    """Upload sessions that take PATCHes and remember what has come."""

    def __init__(self, server: Scripted) -> None:
        self.server = server
        self.data = bytearray()
        self.begun = 0
        self.lose: list[int] = []  # how many bytes of each next body arrive before the connection breaks
        server.on("POST", "/blobs/uploads/", self.begin)
        server.on("GET", "/session", self.status)
        server.on("PATCH", "/session", self.patch)
        server.on("PUT", "/session", self.put)

    def location(self) -> str:
        return f"/v2/app/session/{self.begun}?state={len(self.data)}"

    def begin(self, request: Request) -> None:
        self.begun += 1
        self.data.clear()
        request.answer(202, location=self.location())

    def status(self, request: Request) -> None:
        request.answer(204, location=self.location(), range=f"0-{max(0, len(self.data) - 1)}")

    def patch(self, request: Request) -> None:
        wanted = request.headers.get("Content-Range", "")
        if wanted and int(wanted.partition("-")[0]) != len(self.data):
            request.answer(416, location=self.location(), range=f"0-{len(self.data) - 1}")
            return
        if self._lost(request):
            return
        self.data += request.body
        request.answer(202, location=self.location(), range=f"0-{len(self.data) - 1}")

    def put(self, request: Request) -> None:
        if request.body and self._lost(request):
            return
        self.data += request.body
        digest = parse_qs(urlsplit(request.path).query)["digest"][0]
        if tars.sha256(bytes(self.data)) != digest:
            request.answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"digest did not match"}]}')
            return
        self.server.blobs[digest] = bytes(self.data)
        request.answer(201)

    def _lost(self, request: Request) -> bool:
        if not self.lose:
            return False
        self.data += request.body[: self.lose.pop()]
        request.reset()
        return True


def test_a_broken_upload_goes_on_where_it_was(store: ImageStore, server: Scripted) -> None:
    """The session is asked how much has come, and gets the rest by PATCH."""
    load(store, [LAYER])
    sessions = Sessions(server)
    sessions.lose = [50_000, 100_000]
    pushed = send(store, server)
    assert sessions.begun == 2  # the layer's one session, and the config's
    ranges = [seen.headers["content-range"] for seen in server.requests("PATCH")]
    layer = store.resolve("mine:1").layers[0]
    assert ranges == [f"100000-{layer.size - 1}", f"150000-{layer.size - 1}"]
    assert tars.sha256(server.blobs[layer.digest]) == layer.digest
    assert pushed.digest == store.resolve("mine:1").digest


def test_a_session_that_is_gone_is_begun_anew(store: ImageStore, server: Scripted) -> None:
    """404 for the session after the connection broke."""
    load(store, [LAYER])
    sessions = Sessions(server)
    sessions.lose = [50_000]
    server.on("GET", "/session", lambda request: request.answer(404))
    send(store, server)
    assert sessions.begun == 3
    assert server.requests("PATCH") == []


def test_pieces_where_the_whole_is_too_large(store: ImageStore, server: Scripted) -> None:
    """413 from a proxy: the layer goes in pieces, each within the limit."""
    load(store, [BIG])
    sessions = Sessions(server)

    def limited(request: Request) -> None:
        request.answer(413) if len(request.body) > PIECE else sessions.put(request)

    server.on("PUT", "/session", limited)
    send(store, server)
    sizes = [len(seen.body) for seen in server.requests("PATCH")]
    layer = store.resolve("mine:1").layers[0]
    assert sizes == [PIECE, layer.size - PIECE]
    assert tars.sha256(server.blobs[layer.digest]) == layer.digest


def test_a_stream_that_breaks_is_sent_again(store: ImageStore, server: Scripted) -> None:
    """A layer that is compressed on the way has no digest to resume by: it is begun anew."""
    load(store, [LAYER], gz=False)
    sessions = Sessions(server)
    sessions.lose = [1000]
    pushed = send(store, server)
    manifest = json.loads(server.documents["/v2/app/manifests/1"][1])
    descriptor = manifest["layers"][0]
    assert len(server.blobs[descriptor["digest"]]) == descriptor["size"]
    assert tars.sha256(server.documents["/v2/app/manifests/1"][1]) == pushed.digest


def test_a_digest_the_registry_does_not_find(store: ImageStore, server: Scripted) -> None:
    """Its own words are shown."""
    load(store, [LAYER])
    body = b'{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}'
    server.on("PUT", "/blobs/uploads/", lambda request: request.answer(400, body))
    with pytest.raises(PyrunError, match=r"it refused the request \(400\): provided digest did not match"):
        send(store, server)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_uploads_that_fail_for_ever(store: ImageStore, server: Scripted, method: str) -> None:
    """Tried as often as it should be, and then told; the store does not claim that the image is there."""
    load(store, [LAYER])
    server.on(method, "/blobs/uploads/", lambda request: request.answer(503))
    with pytest.raises(PyrunError, match=r"it is not available \(503\)"):
        send(store, server)
    assert len(server.requests(method)) == QUICK.attempts
    assert store.resolve("mine:1").repo_digests == ()


# Proxies ------------------------------------------------------------------------------------------------------------


class Proxy:
    """An HTTP proxy that knows GET of absolute URLs and CONNECT, and sends everything to one address."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.lines: list[str] = []
        self.headers: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://bob:pass%20word@127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            more = client.recv(65536)
            if not more:
                return
            head += more
        line, _, rest = head.partition(b"\r\n")
        self.lines.append(line.decode())
        self.headers.append(rest.decode(errors="replace"))
        upstream = socket.create_connection(self.target)
        if line.startswith(b"CONNECT"):
            client.sendall(b"HTTP/1.1 200 fine\r\n\r\n")
        else:
            method, url, version = line.split(b" ")
            path = b"/" + url.split(b"/", 3)[3]
            upstream.sendall(b" ".join((method, path, version)) + b"\r\nConnection: close\r\n" + rest)
        back = threading.Thread(target=_pipe, args=(upstream, client), daemon=True)
        back.start()
        _pipe(client, upstream)
        back.join()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_a_proxy_of_the_environment(store: ImageStore, server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY with its password; NO_PROXY and this very machine go around it."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    image = server.image("app", "1", [LAYER])
    proxy = Proxy(("127.0.0.1", server.port))
    try:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        reference = refs.parse("registry.example:5000/app:1")
        registries = configured(reference.domain, insecure=True)
        endpoint = registries.endpoints(reference.domain)[0]
        assert endpoint.schemes[-1] == "http"

        class Plain(type(registries)):  # type: ignore[misc]
            def endpoints(self, domain: str, **options: object) -> tuple[object, ...]:
                return (endpoint.replace(schemes=("http",)),)

        pulled = pull(store, reference, registries=Plain(), patience=QUICK)
        assert pulled.digest == image.digest
        assert proxy.lines[0] == "GET http://registry.example:5000/v2/app/manifests/1 HTTP/1.1"
        expected = base64.b64encode(b"bob:pass word").decode()
        assert all(f"proxy-authorization: basic {expected.lower()}" in text.lower() for text in proxy.headers)
        count = len(proxy.lines)
        pull(store, refs.parse(f"{server.host}/app:1"), registries=configured(server.host), patience=QUICK)
        assert len(proxy.lines) == count  # loopback
        monkeypatch.setenv("NO_PROXY", "example")
        with pytest.raises(PyrunError, match="cannot resolve"):
            pull(store, reference.replace(tag="2"), registries=Plain(), patience=QUICK)
        assert len(proxy.lines) == count
    finally:
        proxy.close()
