# SPDX-License-Identifier: Apache-2.0
"""A password in a URL of a Dockerfile: who gets to see it."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from pyrun.rootfs.build import git
from pyrun.rootfs.build.giturl import masked, parse
from pyrun.runtime.errors import UsageError
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli import Pyrun

WANTED = ["Basic " + base64.b64encode(login).decode() for login in (b"me:min e", b"me:mine")]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """host:port of a server of files and of the repository x.git, for who knows the password."""
    top = tmp_path / "served"
    work, bare = top / "work", top / "x.git"
    work.mkdir(parents=True)
    (work / "f").write_text("content\n")
    (top / "file").write_text("a file\n")
    name = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q"], ["add", "f"], [*name, "commit", "-qm", "one"]):
        subprocess.run(["git", *arguments], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    subprocess.run(["git", "update-server-info"], cwd=bare, check=True)

    class Asks(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(top))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            if self.headers.get("Authorization") in WANTED:
                return super().do_GET()
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=x")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Asks)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_git_is_told_by_its_environment(served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clone works; no command line has the password, of git or of a helper of its, nor has the .git that stays."""
    seen = tmp_path / "seen"
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/git"
    fake.write_text(f'#!/bin/sh\necho "$0 $*" >>{seen}\nexec {shutil.which("git")} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    trace = tmp_path / "trace"
    monkeypatch.setattr(git, "_KEPT", (*git._KEPT, "GIT_TRACE"))
    monkeypatch.setenv("GIT_TRACE", str(trace))  # git writes down what it runs
    top = git.clone(f"http://me:min%20e@{served}/x.git", keep_git_dir=True, scratch=str(tmp_path), trusted=False)
    assert (tmp_path / top / "f").read_text() == "content\n"
    said = seen.read_text() + trace.read_text()
    assert "remote-http" in said
    assert "min e" not in said
    assert "min%20e" not in said
    assert "min" not in (tmp_path / top / ".git/config").read_text()


def test_a_password_cannot_write_lines_for_git(tmp_path: Path) -> None:
    """CVE-2020-5260: a newline in it would say another host."""
    with pytest.raises(UsageError, match="control character"):
        git.clone("http://me:x%0Ahost=y@127.0.0.1:9/x.git", scratch=str(tmp_path))


@requires(root=True)
def test_a_build_shows_no_password(served: str, pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """ADD of a repository and of a file: not in the progress, nor in the history, nor in what a failure shows."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {base_image}\nARG TOKEN=mine\nADD http://me:mine@{served}/x.git /x\n"
        f"ADD http://me:mine@{served}/file /y/\nADD http://me:mine@{served}/missing /z/\n"
    )
    failed = pyrun("build", "--progress=plain", str(tmp_path))
    assert failed.rc != 0
    assert f"ADD http://***@{served}/x.git /x" in failed.err
    assert f">>> ADD http://***@{served}/missing /z/" in failed.err
    assert "me:mine" not in failed.out + failed.err
    lines = (tmp_path / "Dockerfile").read_text().splitlines()
    (tmp_path / "Dockerfile").write_text("\n".join([lines[0], *lines[2:4]]))
    image = pyrun.ok("build", "-q", str(tmp_path)).strip()
    assert pyrun.ok("run", "--rm", image, "cat", "/x/f", "/y/file") == "content\na file"
    history = pyrun.ok("history", "--no-trunc", image)
    assert f"ADD http://***@{served}/x.git /x" in history
    assert "me:mine" not in history + pyrun.ok("image", "inspect", image)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ADD https://u:p@h/x.git#r:d /x", "ADD https://***@h/x.git#r:d /x"),
        ("ADD https://token@h/x /x", "ADD https://***@h/x /x"),
        ('ADD ["https://u:p@q@h:1/x", "/y"]', 'ADD ["https://***@h:1/x", "/y"]'),
        ("RUN a https://u:p@h ftp://v:w@i; mail a@b", "RUN a https://***@h ftp://***@i; mail a@b"),
        ("ADD ssh://git@h/x.git https://h/a@b:c git@h:x.git /", "ADD ssh://git@h/x.git https://h/a@b:c git@h:x.git /"),
    ],
)
def test_masked(text: str, expected: str) -> None:
    """Users and passwords of URLs, and nothing else."""
    assert masked(text) == expected


def test_a_wrong_url_is_refused_without_its_password() -> None:
    """Errors of the parser name the URL."""
    with pytest.raises(UsageError) as refused:
        parse("https://u:secret@h/x.git#..:x")
    assert "secret" not in str(refused.value)
    assert "***@h" in str(refused.value)
