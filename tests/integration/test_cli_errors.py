# SPDX-License-Identifier: Apache-2.0
"""What bad input gets: one line, a hint, the right exit code, and nothing left behind (the fixture looks)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from requires import requires

if TYPE_CHECKING:
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--nmae", "x"), "unknown flag --nmae"),
        (("--name", "a b"), "bad container name: 'a b' does not match"),
        (("-p", "80:x"), "invalid port mapping '80:x'"),
        (("-p", "70000"), "invalid port mapping '70000'"),
        (("-v", "data:rel"), "-v data:rel: target 'rel' is not absolute"),
        (("-v", "/x:/y:rox"), "-v /x:/y:rox: unknown option 'rox'"),
        (("--mount", "type=bind,source=/nosuch-source,target=/x"), "/nosuch-source"),
        (("--mount", "type=bind,src=/etc,dst=/x,redonly"), "unknown key 'redonly'"),
        (("-m", "lots"), "flag -m 'lots': not a size"),
        (("-u", "nosuchuser"), "nosuchuser"),
        (("-w", "relative"), "the working directory must be absolute"),
        (("--network", "nosuch-network"), "nosuch-network"),
        (("--network", "container:nosuch"), "no such container 'nosuch'"),
        (("--pid", "container:nosuch"), "no such container 'nosuch'"),
        (("--volumes-from", "nosuch"), "no such container 'nosuch'"),
        (("--cap-add", "NET_ADMINN"), "NET_ADMINN"),
        (("--device", "/dev/nosuch"), "/dev/nosuch"),
        (("--sysctl", "kernel.core_pattern=x"), "kernel.core_pattern"),
        (("--ulimit", "nofile=2:1"), "the soft limit is above the hard one"),
        (("--security-opt", "seccomp=/nosuch.json"), "seccomp profile /nosuch.json"),
        (("--rm", "--restart", "always"), "--rm and --restart"),
        (("--entrypoint", ""), "no command"),
    ],
)
def test_run_refuses(pyrun: Pyrun, base_image: str, flags: tuple[str, ...], words: str) -> None:
    """125, the reason in the first line, at most a hint after it; no container, no volume, no name."""
    command = () if flags[0] == "--entrypoint" else ("true",)
    done = pyrun("run", "--network", "none", *flags, base_image, *command)
    assert done.rc == 125, str(done)
    assert done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith("pyrun: ")
    assert words in first
    assert len(rest) <= 1
    assert all(line.startswith("hint: ") for line in rest)
    assert pyrun.ok("ps", "-aq") == ""
    assert pyrun.ok("volume", "ls", "-q") == ""


def test_no_such_image(pyrun: Pyrun, base_image: str) -> None:
    """The nearest name is suggested."""
    done = pyrun("run", "--rm", "--pull", "never", "busybx", "true")
    assert done.rc == 125
    assert done.err.splitlines()[0].startswith("pyrun: no such image 'busybx'")
    assert "busybox" in done.err.splitlines()[1]


def test_taken_name(pyrun: Pyrun, base_image: str) -> None:
    """Says who has it."""
    made = pyrun.ok("create", "--name", "web", base_image)
    done = pyrun("run", "-d", "--name", "web", base_image, "true")
    assert done.rc == 125
    assert done.err.splitlines()[0] == f"pyrun: name 'web': container {made[:12]} has it already"
    assert len(pyrun.ok("ps", "-aq").split()) == 1


def test_taken_port(pyrun: Pyrun, base_image: str) -> None:
    """Says which container has it, and the container that was refused is not there."""
    pyrun.ok("run", "-d", "--name", "web", "-p", "127.0.0.1::80", base_image, "sleep", "1000")
    port = pyrun.ok("port", "web", "80").rpartition(":")[2]
    done = pyrun("run", "-d", "--name", "db", "-p", f"127.0.0.1:{port}:80", base_image, "sleep", "1000")
    assert done.rc == 125
    assert "web" in done.err.splitlines()[0]
    assert port in done.err.splitlines()[0]
    assert pyrun.ok("ps", "-a", "--format", "{{.Names}}") == "web"


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("#!/bin/sh\r\necho hi\r\n", (126, 127), "cr lf"),
        ("#!/bin/nosuch\necho hi\n", (126, 127), "/bin/nosuch"),
        ("\x7fELF garbage", (126,), ""),
        ("no shebang", (126,), ""),
    ],
)
def test_a_script_that_cannot_run(
    pyrun: Pyrun, base_image: str, tmp_path: Path, content: str, code: tuple[int, ...], words: str
) -> None:
    """A CRLF shebang, a missing interpreter and a file that is no program are named as such."""
    script = tmp_path / "script"
    script.write_bytes(content.encode("latin-1"))
    script.chmod(0o755)
    done = pyrun("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/x:ro", base_image, "/x/script")
    assert done.rc in code, str(done)
    assert words in done.err.lower()
    assert done.err.startswith("pyrun: ")


def test_v_makes_a_missing_directory_and_mount_does_not(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """As docker does."""
    pyrun.ok("run", "--rm", "--network", "none", "-v", f"{tmp_path}/made:/x", base_image, "test", "-d", "/x")
    assert os.path.isdir(tmp_path / "made")
    done = pyrun(
        "run", "--rm", "--network", "none", "--mount", f"type=bind,src={tmp_path}/not,dst=/x", base_image, "true"
    )
    assert done.rc == 125
    assert not os.path.exists(tmp_path / "not")


def test_names_cannot_forge_output(pyrun: Pyrun, base_image: str) -> None:
    """Control characters in what was typed are shown, not sent."""
    done = pyrun("logs", "x\x1b[31m\nforged")
    assert done.rc == 1
    assert done.err == "pyrun: no such container 'x\\x1b[31m\\nforged'\n"


def test_an_impossible_data_root_is_one_line(pyrun: Pyrun, tmp_path: Path) -> None:
    """A path that cannot be had (here: below a file) is an error of the system's, in its words."""
    (tmp_path / "file").write_text("")
    done = pyrun("--data-root", f"{tmp_path}/file/data", "volume", "create", "x1")
    assert done.rc == 1
    assert f"{tmp_path}/file" in done.err
    assert len(done.err.splitlines()) <= 2
