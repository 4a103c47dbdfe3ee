# SPDX-License-Identifier: Apache-2.0
"""A registry of the tests' own that answers as it is told: honest by itself, and a liar where a test wants one.

    with Scripted() as server:
        server.image("app", "1", [LAYER])
        server.on("GET", "/v2/app/manifests/1", lambda request: request.answer(200, b"{"))

Every request is remembered: method, path, headers, body.
"""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import tars
from pyrun.rootfs import media

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from registries import Authority


@dataclass
class Seen:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Image:
    """An image that the server has: its documents, and the digests of its blobs."""

    manifest: bytes
    config: bytes
    layers: list[bytes]
    kind: str = media.OCI_MANIFEST

    @property
    def digest(self) -> str:
        return tars.sha256(self.manifest)


class Request(BaseHTTPRequestHandler):
    """One connection; what a test's function gets."""

    protocol_version = "HTTP/1.1"
    owner: Scripted

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        self.body = self._chunks() if chunked else self.rfile.read(length)
        seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self.body)
        self.owner.seen.append(seen)
        try:
            self.owner.handle(self)
        except (BrokenPipeError, ConnectionResetError):  # the client has had enough
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - http.server's names

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def answer(self, status: int, data: bytes = b"", /, **headers: str) -> None:
        """An answer; content_type="…" becomes Content-Type. Without a length given it is the data's."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.send_response(status)
        if "transfer-encoding" not in {key.lower() for key in named}:
            named.setdefault("content-length", str(len(data)))
        for key, value in named.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def part(self, data: bytes, **headers: str) -> None:
        """200, or 206 with what a Range header asks for."""
        wanted = self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start:
            headers["content_range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(206 if start else 200, data[start:], **headers)

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True
        self.connection.close()

    def endless(self, piece: bytes, /, status: int = 200, **headers: str) -> None:
        """A chunked body that never ends."""
        self.answer(status, transfer_encoding="chunked", **headers)
        while True:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def log_message(self, *args: object) -> None:
        """Silence."""


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what these tests are about."""


Answer = Callable[[Request], None]


@dataclass
class Scripted:
    """The server, running while the `with` block does; `host` is 127.0.0.1:<port>."""

    authority: Authority | None = None
    seen: list[Seen] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # path -> (media type, content)
    scripts: list[tuple[str, str, Answer]] = field(default_factory=list)
    gate: Callable[[Request], bool] | None = None  # False: it has answered, nothing more is to be done

    def __enter__(self) -> Self:
        handler = type("Handler", (Request,), {"owner": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        if self.authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.authority.cert, self.authority.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    # What it has --------------------------------------------------------------------------------------------------

    def image(self, name: str, tag: str, contents: list[bytes], **fields: Any) -> Image:
        """Adds an image with gzip layers; `fields` replace those of its manifest."""
        packed = [gzip.compress(layer, 1, mtime=0) for layer in contents]
        config = tars.config(contents)
        manifest = {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": self.blob(config, media.OCI_CONFIG),
            "layers": [self.blob(data, media.LAYER_OF["gzip"]) for data in packed],
            **fields,
        }
        made = Image(json.dumps(manifest).encode(), config, packed)
        self.document(name, tag, made.manifest, str(manifest["mediaType"]))
        return made

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """Adds a blob; its descriptor."""
        self.blobs[tars.sha256(data)] = data
        return {"mediaType": kind, "digest": tars.sha256(data), "size": len(data)}

    def document(self, name: str, tag: str, data: bytes, kind: str) -> str:
        """Adds a manifest or index under a tag and its digest; the digest."""
        digest = tars.sha256(data)
        for target in (tag, digest):
            self.documents[f"/v2/{name}/manifests/{target}"] = (kind, data)
        return digest

    def on(self, method: str, part: str, answer: Answer) -> None:
        """Answers requests of this method (any of "GET HEAD") whose path contains `part` by a function."""
        self.scripts.insert(0, (method, part, answer))

    def requests(self, method: str, part: str = "") -> list[Seen]:
        """What came in."""
        return [one for one in self.seen if one.method == method and part in one.path]

    # What it does -------------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> None:
        """The script's answer, else an honest one."""
        if self.gate is not None and not self.gate(request):
            return
        for method, part, answer in self.scripts:
            if request.command in method.split() and part in request.path:
                answer(request)
                return
        self.honest(request)

    def honest(self, request: Request) -> None:
        """What a registry answers."""
        path = request.path.partition("?")[0]
        if path == "/v2/":
            request.answer(200, b"{}", content_type="application/json")
        elif path in self.documents and request.command in ("GET", "HEAD"):
            kind, data = self.documents[path]
            request.answer(200, data, content_type=kind, docker_content_digest=tars.sha256(data))
        elif request.command in ("GET", "HEAD") and path.rpartition("/")[2] in self.blobs:
            request.part(self.blobs[path.rpartition("/")[2]])
        elif request.command == "POST" and path.endswith("/blobs/uploads/"):
            request.answer(202, location=f"{path}session")
        elif request.command == "PUT" and "/blobs/uploads/" in path:
            self.blobs[tars.sha256(request.body)] = request.body
            request.answer(201)
        elif request.command == "PUT" and "/manifests/" in path:
            self.documents[path] = (request.headers["Content-Type"], request.body)
            request.answer(201, docker_content_digest=tars.sha256(request.body))
        else:
            request.answer(404, b'{"errors":[{"code":"UNKNOWN","message":"not here"}]}')
