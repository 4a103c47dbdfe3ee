# SPDX-License-Identifier: Apache-2.0
"""`pyrun build` as people use it: contexts, the Dockerfile's place, errors and exit codes, a shell at the failure."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

import machine
from builds import Builds
from pyrun.runtime import __version__
from requires import requires

if TYPE_CHECKING:
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)


@pytest.fixture
def build(pyrun: Pyrun, base_image: str, tmp_path: Path) -> Builds:
    """Builds on the session's roots, where busybox:latest is."""
    return Builds(pyrun, tmp_path)


def piped(pyrun: Pyrun, data: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """`pyrun WORDS…` with bytes on standard input."""
    return subprocess.run(
        [pyrun.command, *words], input=data, capture_output=True, env=pyrun.environ, check=False,
        timeout=120 * machine.slowness(),
    )  # fmt: skip


def test_contexts_on_standard_input(build: Builds) -> None:
    """A Dockerfile alone, a tar, a compressed tar with -f inside, and -f - with a directory."""
    done = piped(build.pyrun, b"FROM busybox\nRUN echo alone > /x\n", "build", "-q", "-")
    assert done.returncode == 0, done.stderr
    assert build.sh(done.stdout.decode().strip(), "cat /x") == "alone"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in (("sub/my.Dockerfile", b"FROM busybox\nCOPY f /f\n"), ("f", b"in tar")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    done = piped(build.pyrun, out.getvalue(), "build", "-q", "-f", "sub/my.Dockerfile", "-")
    assert done.returncode == 0, done.stderr
    assert build.sh(done.stdout.decode().strip(), "cat /f") == "in tar"
    build.write({"g": "from directory"})
    done = piped(build.pyrun, b"FROM busybox\nCOPY g /g\n", "build", "-q", "-f", "-", str(build.context))
    assert build.sh(done.stdout.decode().strip(), "cat /g") == "from directory"


def test_context_and_add_from_urls(build: Builds) -> None:
    """A tar as context by URL; ADD of a URL, with a check sum and with a wrong one, and one that is not there."""
    context = tar_of({"Dockerfile": b"FROM busybox\nCOPY f /f\n", "f": b"url"})
    with served({"/ctx.tar": context, "/data.txt": b"data"}) as url:
        made = build.pyrun.ok("build", "-q", f"{url}/ctx.tar")
        assert build.sh(made, "cat /f") == "url"
        good = "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
        added = build(
            f"FROM busybox\nADD --checksum={good} {url}/data.txt /d/\nADD --chmod=755 {url}/data.txt /other\n"
        )
        assert build.sh(added.id, "cat /d/data.txt; stat -c ' %a' /d/data.txt /other") == "data 600\n 755"
        assert build(f"FROM busybox\nADD --checksum={good} {url}/data.txt /d/\n").ran == ()
        result = build.fails(f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {url}/data.txt /d/\n")
        assert "Dockerfile:2" in result.err
        assert "404" in build.fails(f"FROM busybox\nADD {url}/nothing /d/\n").err


def tar_of(files: dict[str, bytes]) -> bytes:
    """A plain tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return out.getvalue()


class served:  # noqa: N801 - reads as a statement
    """A web server on loopback with these files, for `with`; gives its URL."""

    def __init__(self, files: dict[str, bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_dockerignore_of_a_dockerfile(build: Builds) -> None:
    """<Dockerfile>.dockerignore takes the place of .dockerignore; COPY of a hidden file is an error."""
    build.write({
        ".dockerignore": "a\n", "other.Dockerfile": "FROM busybox\nCOPY . /all\n",
        "other.Dockerfile.dockerignore": "b\n*Dockerfile*\n", "a": "a", "b": "b",
    })  # fmt: skip
    made = build.pyrun.ok("build", "-q", "-f", str(build.context / "other.Dockerfile"), str(build.context))
    assert build.sh(made, "ls /all") == "a"
    assert ".dockerignore" in build.fails("FROM busybox\nCOPY a /\n").err


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("FROM busybox\nRUNN true\n", "Dockerfile:2: unknown instruction 'RUNN'", "did you mean RUN?"),
        ("FROM busybox\nCOPY missing.txt /\n", "Dockerfile:2: copy 'missing.txt': no such file", ""),
        ("FROM busybox\nRUN --mount=type=cash,target=/x true\n", "Dockerfile:2: ", "did you mean"),
        ("FROM busybox\nRUN --mount=type=secret,id=s,required true\n", "Dockerfile:2: secret 's'", "--secret id=s"),
        ("FROM busybox\nRUN --security=insecure true\n", "not allowed", "--allow security.insecure"),
        ("FROM busybox\nRUN --device=x true\n", "CDI", ""),
        ("FROM busybox\nEXPOSE 99999\n", "Dockerfile:2: EXPOSE 99999", ""),
        ("FROM busybox\nWORKDIR /bin/busybox/x\n", "Dockerfile:2: ", ""),
        ("FROM busybox\nUSER nobody-here\nRUN true\n", "nobody-here", ""),
        ("FROM --platform=linux/quantum busybox\n", "quantum", ""),
        ("RUN x\n", "Dockerfile:1: ", ""),
        ("", "Dockerfile", ""),
        ("FROM busybox\nRUN <<EOF\nno end\n", "Dockerfile:2: ", ""),
        ("FROM busybox\nSTOPSIGNAL SIGNOTHING\n", "Dockerfile:2: STOPSIGNAL SIGNOTHING", ""),
        ("FROM busybox\nCOPY a b /c\n", "Dockerfile:2: COPY of several sources", "write /c/"),
        ("FROM busybox\nENV a=${b:?needed}\n", "b: needed", ""),
    ],
)
def test_errors(build: Builds, text: str, said: str, hint: str) -> None:
    """One line with the Dockerfile's line, exit code 1, and nothing is left."""
    images = build.pyrun.ok("images", "-aq")
    result = build.run(text)
    assert result.rc == 1, str(result)
    last = [line for line in result.err.splitlines() if line.startswith("pyrun: ")]
    assert len(last) == 1
    assert said in last[0]
    assert hint in result.err
    assert build.pyrun.ok("images", "-aq") == images


def test_no_context(build: Builds, tmp_path: Path) -> None:
    """A missing directory, a file, a directory without a Dockerfile, a Dockerfile that is not there."""
    assert "no directory" in build.pyrun("build", str(tmp_path / "nothing")).err
    (tmp_path / "file").write_text("x")
    assert "not a directory" in build.pyrun("build", str(tmp_path / "file")).err
    assert "no Dockerfile" in build.pyrun("build", str(build.context)).err
    assert "nothing.Dockerfile" in build.pyrun("build", "-f", "nothing.Dockerfile", str(build.context)).err
    result = build.pyrun("build")
    assert (result.rc, "needs a context" in result.err) == (125, True)


def test_a_failed_run_shows_where_and_what(build: Builds) -> None:
    """The step, its last output, the lines of the Dockerfile, the exit code, and how to look around."""
    salt = os.urandom(4).hex()
    result = build.fails(f"FROM busybox\nRUN echo fine\nRUN echo {salt}; \\\n    echo worse >&2; exit 7\nCMD x\n")
    assert result.rc == 1
    tail = result.err[result.err.index("------") :].splitlines()
    assert tail[1] == f" > [3/3] RUN echo {salt};     echo worse >&2; exit 7:"
    assert sorted(tail[2:4]) == sorted([salt, "worse"])
    assert tail[4:6] == ["------", "Dockerfile:3"]
    assert f"   3 | >>> RUN echo {salt}; \\" in tail
    assert tail[-2].startswith("pyrun: Dockerfile:3: RUN ")
    assert tail[-2].endswith("exit code 7")
    assert tail[-1] == "hint: pyrun build --debug-shell opens a shell where it failed"


def test_debug_shell(build: Builds) -> None:
    """A build that fails opens a shell with what the step had done; afterwards the same with no context at all."""
    salt = os.urandom(4).hex()
    (build.context / "Dockerfile").write_text(f"FROM busybox\nENV V=seen\nWORKDIR /w\nRUN echo {salt} > made; exit 3\n")
    for words in (("build", "--debug-shell", str(build.context)), ("build", "--debug-shell"), ("builder", "debug")):
        said = typed(build.pyrun, words, "cat made; echo $V-$PWD; exit 5\n")
        assert f"{salt}\r\n" in said, said
        assert "seen-/w" in said
        assert f"a shell where RUN echo {salt} > made; exit 3 failed " in said
        assert f" ago (Dockerfile:4 of {build.context}); nothing" in said
        assert "hint:" not in said
    for words in (("build", "--debug-shell"), ("build", "--debug-shell", str(build.context)), ("builder", "debug")):
        result = build.pyrun(*words)
        what = "builder debug" if words[0] == "builder" else "build --debug-shell"
        assert (result.rc, result.err) == (125, f"pyrun: {what}: standard input is not a terminal\n")
    build.pyrun.ok("builder", "prune", "-af")
    assert "no failed step" in build.pyrun("build", "--debug-shell").err


def typed(pyrun: Pyrun, words: tuple[str, ...], text: str) -> str:
    """What a terminal shows when `text` is typed into `pyrun WORDS…` once its prompt is there."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(pyrun.command, [pyrun.command, *words], pyrun.environ)
    said = b""
    sent = False
    deadline = time.monotonic() + 60 * machine.slowness()
    while time.monotonic() < deadline:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                said += os.read(fd, 65536)
            except OSError:
                break
        if not sent and b"/w # " in said:
            os.write(fd, text.encode())
            sent = True
    os.close(fd)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5, said.decode(errors="replace")
    return said.decode(errors="replace")


def test_check(build: Builds) -> None:
    """--check finds what BuildKit's rules find and builds nothing; a clean file is said to be clean."""
    (build.context / "Dockerfile").write_text("FROM busybox\nMAINTAINER x\n")
    result = build.pyrun("build", "--check", str(build.context))
    assert result.rc == 1
    assert "MaintainerDeprecated" in result.out
    assert "Dockerfile:2" in result.out
    (build.context / "Dockerfile").write_text("FROM busybox\nCOPY a /$NOPE\n")
    (build.context / ".dockerignore").write_text("a\n")
    result = build.pyrun("build", "--check", str(build.context))
    assert "Check complete, 2 warnings have been found!" in result.out
    assert "CopyIgnoredFile" in result.out  # it knows .dockerignore,
    assert "nothing sets $NOPE" in result.out  # and what an image that is here has in its environment
    (build.context / "Dockerfile").write_text('FROM busybox\nCMD ["x"]\n')
    assert build.pyrun.ok("build", "--call", "check", str(build.context)) == "Check complete, no warnings found."
    result = build.pyrun("build", "--build-arg", "ZZ=1", "--check", str(build.context))
    found = ["Check complete, 1 warning has been found!", "", "WARNING: --build-arg ZZ: there is no ARG of that name"]
    assert (result.rc, result.out.splitlines()) == (1, found)


def test_warnings_and_unused_arguments(build: Builds) -> None:
    """After a build the findings are listed, and build arguments that nobody takes; not with -q."""
    made = build("FROM busybox\nARG USED\nMAINTAINER x\n", "--build-arg", "USED=1", "--build-arg", "TYPO=1")
    assert " - MaintainerDeprecated: " in made.err
    assert "TYPO: there is no ARG" in made.err
    assert "USED" not in made.err
    assert build.pyrun("build", "-q", str(build.context)).err == ""


def test_numbers_of_steps_have_no_holes(build: Builds) -> None:
    """A WORKDIR that is there already, FROM a stage and FROM scratch have their lines too, cached or not."""
    salt = os.urandom(4).hex()
    text = (
        f"FROM busybox AS builder\nRUN mkdir /app; echo {salt}\nWORKDIR /app\n"
        "FROM builder AS test\nRUN true\nFROM scratch\nCOPY --from=test /app /app\n"
    )
    for ends in ("DONE", "CACHED"):
        err = build(text).err
        for name in (
            "[builder 1/3] FROM busybox", "[builder 3/3] WORKDIR /app", "[test 1/2] FROM builder",
            "[test 2/2] RUN true", "[stage-2 1/2] FROM scratch", "[stage-2 2/2] COPY",
        ):  # fmt: skip
            assert err.count(f" {name}") == 1, err
        number = next(line for line in err.splitlines() if line.endswith("[test 1/2] FROM builder")).split()[0]
        assert f"{number} {ends}" in err
        number = next(line for line in err.splitlines() if line.endswith("WORKDIR /app")).split()[0]
        assert f"{number} CACHED\n" in err


def test_what_scripts_ask_buildx(build: Builds) -> None:
    """buildx version and ls answer with a line; --isolation default is docker's default."""
    assert build.pyrun.ok("buildx", "version") == f"pyrun build {__version__}"
    assert build.pyrun.ok("buildx", "ls").count("\n") == 0
    build("FROM busybox\n", "--isolation", "default")


def test_rawjson(build: Builds) -> None:
    """--progress rawjson: every line on stderr is JSON."""
    (build.context / "Dockerfile").write_text("FROM busybox\nRUN echo json\n")
    result = build.pyrun("build", "--no-cache", "--progress", "rawjson", str(build.context))
    objects = [json.loads(line) for line in result.err.splitlines()]
    assert any("anNvbgo=" in json.dumps(item) for item in objects)


def test_a_full_disk_is_one_line(build: Builds) -> None:
    """A RUN that fills the disk, or a limit, ends with its own message and exit code."""
    result = build.fails("FROM busybox\nRUN dd if=/dev/zero of=/dev/full bs=1k count=1\n")
    assert "No space left" in result.err
    assert result.rc == 1


def test_trace_of_old_names(build: Builds) -> None:
    """`image build`, `builder build` and `buildx build` are the same command."""
    (build.context / "Dockerfile").write_text("FROM busybox\nLABEL a=b\n")
    ids = {build.pyrun.ok(group, "build", "-q", str(build.context)) for group in ("image", "builder", "buildx")}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--secret", "id=x,src=/nowhere/key", "pyrun: --secret id=x: /nowhere/key: no such file or directory"),
        ("--secret", "id=x,env=NO_SUCH_NAME", "pyrun: --secret id=x: $NO_SUCH_NAME is not set"),
        ("--ssh", "work=/nowhere/id", "pyrun: --ssh work: /nowhere/id: no such file or directory"),
    ],
)
def test_what_was_promised_must_be_there(build: Builds, flag: str, value: str, said: str) -> None:
    """A secret or a key that is not there ends the build before anything is built, whether a step wants it or not."""
    for extra in ((), ("--explain",)):
        result = build.run("FROM busybox\nRUN true\n", flag, value, *extra)
        assert (result.rc, result.err.splitlines(), result.out) == (1, [said], "")


@requires(tools=("ssh-agent", "ssh-add", "ssh-keygen"))
def test_ssh_keys(build: Builds, tmp_path: Path) -> None:
    """--ssh default=KEY: an agent for the build alone, gone afterwards; without --ssh the mount is left out."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    step = 'RUN --mount=type=ssh [ -S "$SSH_AUTH_SOCK" ] && echo yes > /x || echo no > /x'
    made = build(f"FROM busybox\n{step}\n", "--ssh", f"default={key}")
    assert build.sh(made.id, "cat /x") == "yes"
    agents = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "pyrun-ssh-" not in agents
    without = build(f"FROM busybox\n{step}\n")
    assert build.sh(without.id, "cat /x") == "no"
    assert "it is required" in build.fails(f"FROM busybox\n{step.replace('ssh', 'ssh,required')}\n").err
