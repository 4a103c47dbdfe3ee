# SPDX-License-Identifier: Apache-2.0
"""Attacks on the host by a stranger's Dockerfile, layout or archive, tried."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from pyrun.rootfs.walk import directories
from pyrun.runtime.engine.build.agent import AgentRelay
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


# ---- the caller's logins are not a Dockerfile's ----------------------------------------------------------------------


@pytest.fixture
def asking() -> Iterator[tuple[int, list[str]]]:
    """The port of a server that wants a password for everything, and the Authorization headers that it got."""
    got: list[str] = []

    class Asks(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(self.headers.get("Authorization", ""))
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=x")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Asks)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_dockerfile_does_not_log_in_with_the_callers_netrc(
    pyrun: Pyrun, base_image: str, tmp_path: Path, asking: tuple[int, list[str]]
) -> None:
    """ADD of a private repository asks without a password; the same URL as the context is the caller's own wish."""
    port, got = asking
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nADD http://127.0.0.1:{port}/private.git /x\n")
    home = {"HOME": str(tmp_path)}
    failed = pyrun("build", str(tmp_path), env=home)
    assert failed.rc != 0
    assert "access denied" in failed.err
    assert got
    assert not any(got)
    pyrun("build", f"http://127.0.0.1:{port}/private.git", env=home)
    assert "Basic " + base64.b64encode(b"me:mine").decode() in got


@pytest.mark.parametrize("lent", [False, True])
def test_a_dockerfile_has_the_callers_agent_only_when_it_is_lent(
    pyrun: Pyrun, base_image: str, tmp_path: Path, lent: bool
) -> None:
    """ssh gets no key of the caller's, and the agent with --ssh default alone."""
    seen = tmp_path / "seen"
    (tmp_path / "ssh").write_text(f'#!/bin/sh\necho "$SSH_AUTH_SOCK $*" >>{seen}\nexit 1\n')
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nADD git@127.0.0.1:corp/private.git /x\n")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SSH_AUTH_SOCK": "/the/agent"}
    pyrun("build", *(["--ssh", "default"] if lent else []), str(tmp_path), env=env)
    socket, *arguments = seen.read_text().splitlines()[0].split(" ")
    assert socket == ("/the/agent" if lent else "")
    assert ("-oIdentityAgent=none" in arguments) is not lent
    assert "-oIdentityFile=none" in arguments


# ---- layouts ---------------------------------------------------------------------------------------------------------


def layout(directory: Path, digest: str) -> Path:
    """An OCI layout whose index names an index that names the manifest `digest`."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    inner = json.dumps({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": digest, "size": 9}]})
    name = hashlib.sha256(inner.encode()).hexdigest()
    (blobs / name).write_text(inner)
    outer = {"mediaType": INDEX, "digest": f"sha256:{name}", "size": len(inner)}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [outer]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory


def from_layout(pyrun: Pyrun, tmp_path: Path) -> str:
    """What a build says whose base image is that layout."""
    (tmp_path / "Dockerfile").write_text("FROM theirs\n")
    context = f"theirs=oci-layout://{tmp_path}/layout"
    result = pyrun("build", "--build-context", context, str(tmp_path), timeout=20)
    assert result.rc != 0
    return result.err


def test_a_digest_in_a_layout_is_no_path(pyrun: Pyrun, tmp_path: Path) -> None:
    """A nested index names "sha256:../…", a FIFO of the host: it is not opened, which would hold the build for ever."""
    os.mkfifo(tmp_path / "fifo")
    layout(tmp_path / "layout", "sha256:../../../fifo")
    assert "not a sha256 digest" in from_layout(pyrun, tmp_path)


def test_a_blob_that_is_a_fifo_is_not_opened(pyrun: Pyrun, tmp_path: Path) -> None:
    """It is refused as no regular file."""
    layout(tmp_path / "layout", f"sha256:{'a' * 64}")
    os.mkfifo(tmp_path / "layout/blobs/sha256" / ("a" * 64))
    assert "not a regular file" in from_layout(pyrun, tmp_path)


def test_load_of_a_directory_opens_files_only(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """Links to devices (opening /dev/watchdog starts it), to files and to nowhere are left out, and so are FIFOs."""
    pyrun.ok("save", "-o", str(tmp_path / "image.tar"), base_image)
    there = tmp_path / "there"
    there.mkdir()
    subprocess.run(["tar", "-C", str(there), "-xf", str(tmp_path / "image.tar")], check=True)
    (there / "tty").symlink_to("/dev/tty")  # ENXIO for one without a terminal
    (there / "nowhere").symlink_to("/nowhere/at/all")
    os.mkfifo(there / "fifo")
    assert base_image in pyrun.ok("load", "-i", str(there))


# ---- trees that are too deep for recursion ---------------------------------------------------------------------------

DEEPER = "i=0; while [ $i -lt 1500 ]; do mkdir d; cd d || exit 1; i=$((i+1)); done; echo x >f"


def test_a_deep_cache_can_be_looked_at_and_pruned(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """A RUN nests 1500 directories in its cache: `builder du`, `system df` and `builder prune` work all the same."""
    script = f"FROM {base_image}\nRUN --mount=type=cache,id=deep,target=/c cd /c; {DEEPER}\n"
    (tmp_path / "Dockerfile").write_text(script)
    pyrun.ok("build", str(tmp_path))
    pyrun.ok("builder", "du")
    pyrun.ok("system", "df")
    pyrun.ok("builder", "prune", "-af")
    assert not os.listdir(f"{pyrun.paths.data}/build/cache")


def test_a_deep_layer_is_an_error_with_a_reason(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """Also when its times are to be clamped, which walks it first."""
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN cd /tmp; {DEEPER}\n")
    failed = pyrun("build", "--build-arg", "SOURCE_DATE_EPOCH=1", str(tmp_path))
    assert failed.rc == 1
    assert "more than 256 directories deep" in failed.err


def test_a_container_with_a_deep_tree_is_listed(pyrun: Pyrun, base_image: str) -> None:
    """`ps --size` walks what the container wrote."""
    script = f"cd /tmp; {DEEPER}; echo x >/ready; sleep 100"
    name = pyrun.ok("run", "-d", base_image, "sh", "-c", script).strip()
    try:
        pyrun.ok("exec", name, "sh", "-c", "until [ -s /ready ]; do sleep 0.1; done")
        assert pyrun.ok("ps", "--size", "--filter", f"id={name}").rstrip().endswith(" 4B")
    finally:
        pyrun.ok("rm", "-f", name)


def test_the_walk_ends_when_the_way_back_is_moved(tmp_path: Path) -> None:
    """ ".." of a directory that was moved is another place: nothing there is entered."""
    (tmp_path / "top/a/b").mkdir(parents=True)
    (tmp_path / "top/z").mkdir()
    (tmp_path / "other/stranger").mkdir(parents=True)
    (tmp_path / "top/link").symlink_to(tmp_path / "other")
    seen = []
    for fd, names in directories(str(tmp_path / "top")):
        seen += names
        if names == ["b"]:
            os.rename(tmp_path / "top/a", tmp_path / "other/a")
        os.fstat(fd)
    assert "stranger" not in seen
    assert {"a", "z", "link"} <= set(seen)


# ---- what others write does not steer the terminal -------------------------------------------------------------------

HOSTILE = 'RUN printf "\\033]0;title\\007\\302\\2332J\\rforged\\n"; echo \x1b]0;file\x07; exit 3\n'


@pytest.mark.parametrize("mode", [["--progress", "plain"], ["--progress", "tty"], ["--explain"], ["--check"]])
def test_no_escape_sequence_reaches_the_terminal(
    pyrun: Pyrun, base_image: str, tmp_path: Path, mode: list[str]
) -> None:
    """Not from a step's output, nor from the Dockerfile's lines. A file gets the bytes as they are."""
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nmaintainer \x1b]0;me\x07\n{HOSTILE}")
    command = shlex.join([pyrun.command, "build", *mode, str(tmp_path)])
    there = {**pyrun.environ, "NO_COLOR": "1"}
    ran = subprocess.run(
        ["script", "-qec", command, "/dev/null"], env=there, capture_output=True, check=False, timeout=60
    )
    shown = ran.stdout.decode()
    assert "0;me" in shown
    for forbidden in ("\x1b]", "\x07", "\x9b", "\rforged"):
        assert forbidden not in shown
    if mode[-1] == "plain":
        assert (
            b"\x1b]0;title\x07"
            in subprocess.run(shlex.split(command), env=there, capture_output=True, check=False, timeout=60).stderr
        )


# ---- the caller's ssh agent ------------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """The socket of an ssh-agent with one key, which lies at tmp_path/key."""
    path = str(tmp_path / "agent.sock")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(path):
            time.sleep(0.01)
        assert ssh_add(path, str(tmp_path / "key")).returncode == 0
        yield path
    finally:
        process.terminate()
        process.wait()


def ssh_add(path: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh-add", *words],
        env={**os.environ, "SSH_AUTH_SOCK": path, "SSH_ASKPASS_REQUIRE": "never"},
        capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@requires(tools=("ssh-agent", "ssh-add", "ssh-keygen"))
def test_a_step_can_sign_with_the_agents_keys_and_nothing_else(agent: str, tmp_path: Path) -> None:
    """It cannot remove keys, add its own, or have a library loaded; what is no request ends its connection."""
    (tmp_path / "relay").mkdir()
    relay = AgentRelay(str(tmp_path / "relay"), agent).start(0, 0, 0o600)
    try:
        key = str(tmp_path / "key")
        assert "ED25519" in ssh_add(relay.path, "-l").stdout
        assert ssh_add(relay.path, "-T", f"{key}.pub").returncode == 0
        assert ssh_add(relay.path, "-D").returncode != 0
        assert ssh_add(relay.path, "-d", f"{key}.pub").returncode != 0
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{key}2"], check=True)
        assert ssh_add(relay.path, f"{key}2").returncode != 0
        for kind in (17, 18, 19, 20, 21, 22, 23, 25, 26, 255):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(relay.path)
                client.sendall(b"\0\0\0\5" + bytes([kind]) + b"\0\0\0\0")
                assert client.recv(100) == b"\0\0\0\1\5"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(relay.path)
            client.sendall(b"\xff" * 8)
            assert client.recv(100) == b""
        assert ssh_add(agent, "-l").stdout.count("ED25519") == 1
    finally:
        relay.close()


# ---- what a message and a key say ------------------------------------------------------------------------------------


def test_a_password_in_a_repositorys_url_is_in_no_message(pyrun: Pyrun) -> None:
    """Messages end up in the logs of a CI."""
    failed = pyrun("build", "http://me:mine@127.0.0.1:9/x.git")
    assert failed.rc != 0
    assert "127.0.0.1:9/x.git" in failed.err
    assert "mine" not in failed.err


def test_the_hostname_of_a_step_is_in_its_key(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """Two builds that see other names do not share a layer."""
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN hostname >/h\n")
    given = ("--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=other", "--build-arg", "SOURCE_DATE_EPOCH=1")
    assert pyrun.ok("build", "-q", *given[2:], str(tmp_path)) != pyrun.ok("build", "-q", *given, str(tmp_path))
