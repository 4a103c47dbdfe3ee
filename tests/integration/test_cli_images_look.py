# SPDX-License-Identifier: Apache-2.0
"""image tree, image mount, images and its filters; and that what an image's author wrote cannot steer a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli import Pyrun

pytestmark = requires(root=True)


@pytest.fixture
def stacked(pyrun: Pyrun, base_image: str) -> Iterator[str]:
    """An image of two layers called stacked:1, on top of base_image."""
    pyrun.ok(
        "run",
        "--name",
        "maker",
        "--network",
        "none",
        base_image,
        "sh",
        "-c",
        "echo hi >/etc/motd; chmod 4755 /bin/busybox",
    )
    pyrun.ok("commit", "maker", "stacked:1")
    pyrun.ok("rm", "maker")
    yield "stacked:1"
    left = pyrun.ok("ps", "-aq").split()
    if left:
        pyrun.ok("rm", "-f", *left)
    pyrun.ok("rmi", "stacked:1")


# image tree ----------------------------------------------------------------------------------------------------------


def test_tree_shows_layers_and_who_shares_them(pyrun: Pyrun, base_image: str, stacked: str) -> None:
    """Sizes, the images that end at a layer, the ones that go on from it; and the images on top."""
    lines = pyrun.ok("image", "tree", base_image).splitlines()
    assert lines[0].startswith("Image ID: ")
    assert lines[3] == "Image Layers"
    assert lines[-1].startswith("└── ID: ")
    assert lines[-1].endswith(f"Top Layer of: [{base_image}] Also in: [stacked:1]")
    above = pyrun.ok("image", "tree", stacked).splitlines()
    assert [line[:8] for line in above[4:]] == ["├── ID: ", "└── ID: "]
    assert above[-1].endswith("Top Layer of: [stacked:1]")
    assert pyrun.ok("image", "tree", "--whatrequires", base_image).splitlines()[-1] == "└── stacked:1"
    assert pyrun.ok("image", "tree", "--whatrequires", stacked).splitlines()[-1] == "No Images on top of it"
    whole = pyrun.ok("image", "tree", "--no-trunc", stacked)
    for layer in json.loads(pyrun.ok("image", "inspect", stacked))[0]["RootFS"]["Layers"]:
        assert layer.removeprefix("sha256:") in whole


# image mount ---------------------------------------------------------------------------------------------------------


def test_mount_runs_a_command_that_sees_the_image(pyrun: Pyrun, stacked: str) -> None:
    """Merged and read-only, in its working directory and in $PYRUN_IMAGE_ROOT; its exit code and output are the
    command's, and the host's files are where they were."""
    assert pyrun.ok("image", "mount", stacked, "cat", "etc/motd") == "hi"
    assert pyrun.ok("image", "mount", stacked, "sh", "-c", 'cat "$PYRUN_IMAGE_ROOT/etc/motd"') == "hi"
    failed = pyrun("image", "mount", stacked, "sh", "-c", "echo x >etc/motd")
    assert failed.rc != 0
    assert "ead-only file system" in failed.err
    assert pyrun("image", "mount", stacked, "sh", "-c", "exit 7").rc == 7
    assert pyrun("image", "mount", stacked, "sh", "-c", "kill -9 $$").rc == 137
    assert pyrun.ok("image", "mount", stacked, "ls", "-d", "/proc/self", __file__).splitlines()[-1] in (
        __file__,
        "/proc/self",
    )


def test_mount_makes_nothing_of_the_image_dangerous(pyrun: Pyrun, stacked: str) -> None:
    """Set-user-id programs and devices of the image are without power on the host."""
    options = (
        pyrun.ok("image", "mount", stacked, "sh", "-c", 'grep " $PWD " /proc/self/mountinfo').split()[5].split(",")
    )
    assert {"ro", "nosuid", "nodev"} <= set(options)


def test_mount_leaves_nothing_on_the_host(pyrun: Pyrun, stacked: str, tmp_path: Path) -> None:
    """No mount while it runs, nor after; not when it is killed either; and no directory once it ended by itself."""
    ready = tmp_path / "ready"
    process = pyrun.popen(
        "image", "mount", stacked, "sh", "-c", f"pwd >{ready}.new; mv {ready}.new {ready}; exec sleep 100"
    )
    deadline = time.monotonic() + 20
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    directory = ready.read_text().strip()
    assert os.listdir(directory) == []  # seen from here
    assert directory not in Path("/proc/self/mountinfo").read_text()
    process.send_signal(signal.SIGTERM)  # goes on to the command
    assert process.wait(20) == 128 + signal.SIGTERM
    assert not os.path.exists(f"{pyrun.paths.run}/mounts")
    assert os.listdir(f"{pyrun.paths.data}/images/ingest") == []


def test_a_mounted_image_can_be_removed_and_stays_readable(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """Its layers go when the command has ended and somebody changes the store next."""
    pyrun.ok("run", "--name", "maker", "--network", "none", base_image, "sh", "-c", "echo only >/only")
    pyrun.ok("commit", "maker", "mounted:1")
    pyrun.ok("rm", "maker")
    layers = set(os.listdir(f"{pyrun.paths.data}/layers"))
    go = tmp_path / "go"
    os.mkfifo(go)
    process = pyrun.popen("image", "mount", "mounted:1", "sh", "-c", f"echo ready; cat {go}; cat only")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    pyrun.ok("rmi", "mounted:1")
    go.write_text("gone\n")
    assert process.communicate(timeout=20)[0] == b"gone\nonly\n"
    pyrun.ok("image", "prune", "-f")
    assert len(set(os.listdir(f"{pyrun.paths.data}/layers"))) < len(layers)


def test_mount_says_what_is_missing(pyrun: Pyrun, stacked: str) -> None:
    """The image, or the command, which is one of the host's."""
    bad = pyrun("image", "mount", "nosuch", "ls")
    assert bad.rc == 125
    assert bad.err.startswith("pyrun: no such image 'nosuch'\nhint: pyrun pull nosuch fetches it")
    bad = pyrun("image", "mount", stacked, "no-such-command")
    assert bad.rc == 127
    assert "the command is one of the host's" in bad.err
    assert not os.path.exists(f"{pyrun.paths.run}/mounts")


# images --------------------------------------------------------------------------------------------------------------


def test_images_filters(pyrun: Pyrun, base_image: str, stacked: str) -> None:
    """before, since, until, label, reference, dangling; together they all must fit."""

    def names(*filters: str) -> list[str]:
        words = [word for text in filters for word in ("-f", text)]
        return pyrun.ok("images", "--format", "{{.Repository}}:{{.Tag}}", *words).splitlines()

    assert names(f"since={base_image}") == [stacked]
    assert stacked not in names(f"before={stacked}")
    assert base_image in names(f"before={stacked}")
    assert names("reference=stack*") == [stacked]
    assert names("reference=stack*", "label=nosuch") == []
    assert names("until=1h", "reference=stacked:1") == []
    assert names("until=1ms", "reference=stacked:1") == [stacked]
    assert names("dangling=true") == []
    bad = pyrun("images", "-f", "until=yesterday")
    assert bad.rc == 125
    assert "--filter until=yesterday: not a time" in bad.err


def test_images_tree_and_digests(pyrun: Pyrun, stacked: str) -> None:
    """The platform below the names; what is in use is marked; digests are the manifests'."""
    pyrun.ok("create", "--name", "user", stacked, "true")
    lines = pyrun.ok("images", "--tree").splitlines()
    assert lines[0].split() == ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]
    row = next(at for at, line in enumerate(lines) if line.startswith("stacked:1"))
    assert lines[row].split()[-1] == "U"
    assert lines[row + 1].startswith("└─ linux/")
    digest = json.loads(pyrun.ok("image", "inspect", stacked))[0]["Descriptor"]["digest"]
    assert digest in pyrun.ok("images", "--digests")
    assert pyrun("images", "--tree", "-q").rc == 125


def test_rmi_of_several_goes_on_after_a_mistake(pyrun: Pyrun, stacked: str) -> None:
    """One error for the one that is not there; the others go."""
    pyrun.ok("tag", stacked, "other:1")
    pyrun.ok("tag", stacked, "other:2")
    done = pyrun("rmi", "other:1", "nosuch:1", "other:2")
    assert done.rc == 1
    assert done.out.splitlines() == ["Untagged: other:1", "Untagged: other:2"]
    assert done.err.startswith("pyrun: no such image 'nosuch:1'")


# What must not reach a terminal --------------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2J\nforged row\t\x9b31m"


@pytest.fixture
def evil(pyrun: Pyrun, tmp_path: Path) -> Iterator[str]:
    """An image whose labels, command and history hold escape sequences, and a container of it."""
    with tarfile.open(tmp_path / "root.tar", "w"):
        pass
    pyrun.ok("import", "-m", EVIL, "-c", f"CMD {json.dumps([EVIL])}", str(tmp_path / "root.tar"), "evil:1")
    pyrun.ok("create", "--name", "evil", "--label", f"note={EVIL}", "evil:1")
    pyrun.ok("commit", "-m", EVIL, "-a", EVIL, "evil", "evil:2")
    yield "evil:1"
    pyrun.ok("rm", "evil")
    pyrun.ok("rmi", "evil:1", "evil:2")


def on_a_terminal(pyrun: Pyrun, *words: str) -> str:
    """What the command writes when its standard output is a terminal."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [pyrun.command, *words], env=pyrun.environ, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        written = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:
                break
            if not chunk:
                break
            written += chunk
        assert process.wait(30) == 0
        return written.decode()
    finally:
        os.close(ours)


@pytest.mark.parametrize(
    "words",
    [
        ("history", "evil:2"),
        ("history", "--no-trunc", "evil:2"),
        ("history", "--format", "{{.Comment}}", "evil:2"),
        ("ps", "-a", "--no-trunc"),
        ("ps", "-a", "--format", "{{.Labels}} {{.Command}}"),
        ("ps", "-a", "--format", "table {{.Labels}}"),
        ("images", "--format", "{{json .}}"),
        ("image", "inspect", "evil:2"),
        ("image", "inspect", "-f", "{{.Comment}} {{.Config.Labels}} {{json .Config}}", "evil:2"),
        ("inspect", "evil"),
        ("container", "inspect", "-f", "{{.Config.Cmd}}", "evil"),
    ],
)
def test_a_terminal_gets_no_escape_sequence(pyrun: Pyrun, evil: str, words: tuple[str, ...]) -> None:
    """Neither ESC nor its 8-bit relatives, whatever an image's author wrote into labels, command and history."""
    written = on_a_terminal(pyrun, *words)
    found = {char for char in written if char < " " or "\x7f" <= char <= "\x9f"} - {"\r", "\n"}
    assert not found


def test_a_table_row_cannot_be_forged(pyrun: Pyrun, evil: str) -> None:
    """A newline in a label is shown as one; a program that reads a template's output gets it as it is."""
    assert len(pyrun.ok("history", "evil:2").splitlines()) == 3
    assert len(pyrun.ok("ps", "-a", "--format", "table {{.Names}}\t{{.Labels}}").splitlines()) == 2
    assert EVIL in pyrun.ok("history", "--format", "{{.Comment}}", "evil:2")
    assert json.loads(pyrun.ok("image", "inspect", "evil:2"))[0]["Comment"] == EVIL
