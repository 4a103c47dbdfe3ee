# SPDX-License-Identifier: Apache-2.0
"""ADD of a URL and contexts from one, against a server of the tests' own that is slow, forgetful or a liar."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import tars
from buildtrees import Build, make
from pyrun.rootfs.build import remote
from pyrun.rootfs.build.context import open_context
from pyrun.rootfs.build.source import Tree
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from requires import requires

pytestmark = requires(root=True)

BODY = b"hello " * 5000
SUM = "sha256:" + hashlib.sha256(BODY).hexdigest()
LAST_MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"


class Server(ThreadingHTTPServer):
    """Path -> what answers it; counts the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        answer = self.server.answers.get(path)
        if answer is None:
            self.reply(404)
        else:
            answer(self)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_download(server: Server, tmp_path: Path) -> None:
    """The file has the URL's name, mode 0600, the server's time, and its digest is known."""
    server.answers["/a/file.bin"] = lambda request: request.reply(200, BODY, Last_Modified=LAST_MODIFIED)
    found = remote.fetch(f"{server.url}/a/file.bin?x=1", SUM, str(tmp_path))
    assert Path(found.path).read_bytes() == BODY
    assert (found.name, found.digest, found.size) == ("file.bin", SUM, len(BODY))
    info = os.stat(found.path)
    assert stat.S_IMODE(info.st_mode) == 0o600
    assert info.st_mtime == found.mtime_ns / 10**9 == 784111777
    assert os.path.basename(found.path) == "file.bin"


def test_without_last_modified_the_time_is_1970(server: Server, tmp_path: Path) -> None:
    """So that the same download gives the same layer."""
    server.answers["/x"] = lambda request: request.reply(200, BODY)
    assert os.stat(remote.fetch(f"{server.url}/x", "", str(tmp_path)).path).st_mtime == 0


def test_add_of_a_url_copies_it_and_does_not_unpack(server: Server, tmp_path: Path) -> None:
    """As ADD does: 0600 0:0 unless said otherwise; archives are unpacked with --unpack only."""
    archive = gzip.compress(tars.tar(tars.member("in", data=b"in")))
    server.answers["/x.tgz"] = lambda request: request.reply(200, archive)
    build = Build(tmp_path, {})
    for unpack in (False, True):
        found = remote.fetch(f"{server.url}/x.tgz", "", str(tmp_path))
        with Tree.directory(os.path.dirname(found.path), found.name) as tree:
            plan = build.plan(tree, found.name, to="/t/", unpack=unpack, literal=True)
            assert [folder.unpack for folder in plan.folders] == ([False, True] if unpack else [False, False])


STATUSES = [
    (404, NotFound, "not found"), (410, NotFound, "not found"), (401, PyrunError, "access denied"),
    (403, PyrunError, "access denied"), (500, PyrunError, "answered 500"), (418, PyrunError, "answered 418"),
    (204, PyrunError, "answered 204"), (206, PyrunError, "answered 206"), (304, PyrunError, "answered 304"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind", "words"), STATUSES)
def test_errors_of_the_server(server: Server, tmp_path: Path, status: int, kind: type[PyrunError], words: str) -> None:
    """Each its own words; nothing is left of the attempt."""
    server.answers["/x"] = lambda request: request.reply(status)
    with pytest.raises(kind, match=words):
        remote.fetch(f"{server.url}/x", "", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_what_may_pass_is_tried_again(server: Server, tmp_path: Path) -> None:
    """429 and 503 with Retry-After, a cut body: the next answer counts."""
    replies: list[Callable[[Handler], None]] = [
        lambda request: request.reply(503, Retry_After="0"),
        lambda request: request.reply(429),
        lambda request: request.reply(200, BODY[:100], Content_Length=str(len(BODY))),
        lambda request: request.reply(200, BODY),
    ]
    server.answers["/x"] = lambda request: (replies.pop(0))(request)  # noqa: PLW0108 - the next one each time
    assert remote.fetch(f"{server.url}/x", SUM, str(tmp_path)).size == len(BODY)
    assert len(server.asked) == 4


def test_a_server_that_never_recovers(server: Server, tmp_path: Path) -> None:
    """A few tries, then its reason."""
    server.answers["/x"] = lambda request: request.reply(503)
    with pytest.raises(PyrunError, match="503"):
        remote.fetch(f"{server.url}/x", "", str(tmp_path))
    assert len(server.asked) == remote.TRIES
    server.answers["/y"] = lambda request: request.reply(200, BODY[:7], Content_Length=str(len(BODY)))
    with pytest.raises(PyrunError, match="broke|cut short"):
        remote.fetch(f"{server.url}/y", "", str(tmp_path))


def test_a_wrong_checksum(server: Server, tmp_path: Path) -> None:
    """Says both, keeps nothing, is not tried again; sha384 and sha512 count too."""
    server.answers["/x"] = lambda request: request.reply(200, BODY)
    with pytest.raises(PyrunError, match=f"its checksum is {SUM}"):
        remote.fetch(f"{server.url}/x", "sha256:" + "0" * 64, str(tmp_path))
    assert os.listdir(tmp_path) == []
    assert len(server.asked) == 1
    remote.fetch(f"{server.url}/x", "sha512:" + hashlib.sha512(BODY).hexdigest(), str(tmp_path))
    with pytest.raises(PyrunError, match="its checksum is sha384"):
        remote.fetch(f"{server.url}/x", "sha384:" + "0" * 96, str(tmp_path))


def test_redirects(server: Server, tmp_path: Path) -> None:
    """Followed a few times, relative ones too; never to another protocol. The name is that of the first URL."""
    server.answers["/one"] = lambda request: request.reply(302, Location="/two?q#f")
    server.answers["/two"] = lambda request: request.reply(307, Location=f"{server.url}/three")
    server.answers["/three"] = lambda request: request.reply(200, BODY)
    assert remote.fetch(f"{server.url}/one", SUM, str(tmp_path)).name == "one"
    server.answers["/loop"] = lambda request: request.reply(301, Location="/loop")
    with pytest.raises(PyrunError, match="redirects"):
        remote.fetch(f"{server.url}/loop", "", str(tmp_path))
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x", "data:,x"):
        server.answers["/out"] = functools.partial(Handler.reply, status=302, Location=target)
        with pytest.raises(PyrunError, match="not followed"):
            remote.fetch(f"{server.url}/out", "", str(tmp_path))


def test_credentials_go_to_the_host_of_the_url_only(server: Server, tmp_path: Path) -> None:
    """user:password@ becomes basic authentication there, is not sent on to another, and is in no message."""
    other = Server()
    thread = threading.Thread(target=other.serve_forever, args=(0.02,))
    thread.start()
    try:
        server.answers["/x"] = lambda request: request.reply(302, Location=f"{other.url}/y")
        with pytest.raises(NotFound) as caught:
            remote.fetch(f"http://me:secret@127.0.0.1:{server.server_port}/x", "", str(tmp_path))
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    assert "secret" not in str(caught.value)
    assert server.headers[0]["authorization"] == "Basic bWU6c2VjcmV0"
    assert "authorization" not in other.headers[0]


def test_too_much(server: Server, tmp_path: Path) -> None:
    """A length beyond the limit is refused at once, an endless body when it gets there."""
    server.answers["/said"] = lambda request: request.reply(200, b"x", Content_Length=str(10**15))

    def endless(request: Handler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(bytes(1 << 16))
        except OSError:
            pass

    server.answers["/endless"] = endless
    with pytest.raises(PyrunError, match="more than"):
        remote.fetch(f"{server.url}/said", "", str(tmp_path))
    with pytest.raises(PyrunError, match="more than the 1000000 bytes"):
        remote.fetch(f"{server.url}/endless", "", str(tmp_path), max_bytes=1_000_000)
    assert os.listdir(tmp_path) == []


def test_unreachable_servers(tmp_path: Path) -> None:
    """Refused, and no such host: each its own words."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(PyrunError, match="connection refused"):
        remote.fetch(f"http://127.0.0.1:{port}/x", "", str(tmp_path))
    with pytest.raises(PyrunError, match="cannot resolve"):
        remote.fetch("http://no-such-host.invalid/x", "", str(tmp_path))


@pytest.mark.parametrize(
    "url", ["http://", "http:///x", "http://[::1/x", "http://a b/x", "file:///etc/passwd", "http://h:99999/"]
)
def test_bad_urls(tmp_path: Path, url: str) -> None:
    """Refused before anything is asked."""
    with pytest.raises(UsageError):
        remote.fetch(url, "", str(tmp_path))


def test_contexts_from_urls(server: Server, tmp_path: Path) -> None:
    """An archive is unpacked, a text is the Dockerfile."""
    server.answers["/context.tar.gz"] = lambda request: request.reply(
        200, gzip.compress(tars.tar(tars.member("Dockerfile", data=b"FROM a"), tars.member("f", data=b"f")))
    )
    server.answers["/Dockerfile"] = lambda request: request.reply(200, b"FROM b")
    for name, text, files in (
        ("context.tar.gz", b"FROM a", {"Dockerfile": "FROM a", "f": "f"}),
        ("Dockerfile", b"FROM b", {}),
    ):
        scratch = tmp_path / name
        scratch.mkdir()
        build = Build(tmp_path / f"{name}-build", {})
        with open_context(f"{server.url}/{name}", stdin=io.BytesIO(b"FROM c"), scratch=str(scratch)) as context:
            assert context.dockerfile() == text
            assert context.dockerfile("-") == b"FROM c"
            assert build.copy(".", tree=context.tree) == files


def test_a_repository_over_http(server: Server, tmp_path: Path) -> None:
    """Git's "dumb" protocol is files on a server: a clone of http://…/x.git#ref:directory through it."""
    work = make(tmp_path / "work", {"f": "f", "d/g": "g"})
    me = ["-c", "user.name=t", "-c", "user.email=t@t"]
    bare = ["clone", "-q", "--bare", ".", str(tmp_path / "x.git")]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*me, "commit", "-qm", "1"], bare):
        subprocess.run(["git", *words], cwd=work, check=True, capture_output=True)
    subprocess.run(["git", "update-server-info"], cwd=tmp_path / "x.git", check=True)
    for path in (tmp_path / "x.git").rglob("*"):
        if path.is_file():
            name = f"/x.git/{path.relative_to(tmp_path / 'x.git')}"
            server.answers[name] = functools.partial(Handler.reply, status=200, body=path.read_bytes())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    build = Build(tmp_path / "build", {})
    with open_context(f"{server.url}/x.git#main:d", stdin=io.BytesIO(), scratch=str(scratch)) as context:
        assert build.copy(".", tree=context.tree) == {"g": "g"}


@requires(tools=("setpriv", "unshare"))
def test_git_ends_with_the_build(tmp_path: Path) -> None:
    """A build that is killed while a server lets git wait leaves no git behind."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        script = "import sys; from pyrun.rootfs.build import git; git.clone(sys.argv[1], scratch=sys.argv[2])"
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.git"
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        build = subprocess.Popen([sys.executable, "-c", script, url, str(tmp_path)], env=environment)
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                assert connection.recv(4096).startswith(b"GET /x.git/info/refs")
                build.kill()
                assert connection.recv(4096) == b""
        finally:
            build.kill()
            build.wait()
