# SPDX-License-Identifier: Apache-2.0
"""commit, diff and export: what a container wrote becomes an image, a list, an archive."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli import Pyrun

pytestmark = requires(root=True)


@pytest.fixture(autouse=True)
def images_go(pyrun: Pyrun) -> Iterator[None]:
    """What a test has named goes with it."""
    before = set(pyrun.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split())
    yield
    left = pyrun.ok("ps", "-aq").split()
    if left:
        pyrun.ok("rm", "-f", "-v", *left)
    for name in set(pyrun.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split()) - before:
        if "<none>" not in name:
            pyrun.ok("rmi", name)
    pyrun.ok("image", "prune", "-f")


def inspect(pyrun: Pyrun, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pyrun.ok("image", "inspect", name))[0]
    return found


def layer(pyrun: Pyrun, name: str) -> dict[str, tarfile.TarInfo]:
    """The entries of an image's last layer."""
    found = inspect(pyrun, name)
    blobs = Path(pyrun.paths.data) / "images" / "blobs" / "sha256"
    manifest = json.loads((blobs / found["Descriptor"]["digest"][7:]).read_text())
    with tarfile.open(blobs / manifest["layers"][-1]["digest"][7:]) as archive:
        return {info.name: info for info in archive}


def run(pyrun: Pyrun, *words: str) -> str:
    return pyrun.ok("run", "--network", "none", *words)


def test_commit_keeps_what_was_written_and_how_it_was_started(pyrun: Pyrun, base_image: str) -> None:
    """Files, deletions, and the container's own command, variables, user, directory and labels."""
    flags = ("-e", "A=1", "-u", "7", "-w", "/tmp", "-l", "team=x", "--expose", "80", "--stop-signal", "SIGINT")
    run(pyrun, "--name", "one", base_image, "sh", "-c", "echo hi >/etc/motd; rm /etc/passwd")
    identity = pyrun.ok("commit", "-a", "me", "-m", "why", "one", "committed:1")
    assert identity.startswith("sha256:")
    assert (
        run(pyrun, "--rm", "committed:1", "sh", "-c", "cat /etc/motd; ls /etc/passwd 2>/dev/null || echo gone")
        == "hi\ngone"
    )
    found = inspect(pyrun, "committed:1")
    assert (found["Id"], found["Author"], found["Comment"]) == (identity, "me", "why")
    assert found["Config"]["Cmd"] == ["sh", "-c", "echo hi >/etc/motd; rm /etc/passwd"]
    assert found["RootFS"]["Layers"][:-1] == inspect(pyrun, base_image)["RootFS"]["Layers"]
    pyrun.ok("create", "--name", "two", *flags, base_image, "id", "-u")
    pyrun.ok("commit", "two", "committed:2")
    config = inspect(pyrun, "committed:2")["Config"]
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("7", "/tmp", "SIGINT")
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert "A=1" in config["Env"]
    assert config["Labels"]["team"] == "x"
    assert run(pyrun, "--rm", "committed:2") == "7"


def test_commit_of_nothing_adds_a_line_of_history_and_no_layer(pyrun: Pyrun, base_image: str) -> None:
    """The image has its base's layers."""
    pyrun.ok("create", "--name", "one", base_image, "true")
    pyrun.ok("commit", "-m", "nothing", "one", "committed:1")
    assert inspect(pyrun, "committed:1")["RootFS"] == inspect(pyrun, base_image)["RootFS"]
    first = json.loads(pyrun.ok("history", "--format", "json", "committed:1").splitlines()[0])
    assert (first["Comment"], first["Size"], first["CreatedBy"]) == ("nothing", "0B", "true")


def test_changes_of_commit_alter_the_config(pyrun: Pyrun, base_image: str) -> None:
    """-c takes Dockerfile instructions; a wrong one is told before anything is done."""
    pyrun.ok("create", "--name", "one", base_image, "true")
    changes = ('CMD ["echo", "changed"]', "ENV X=y", "LABEL a=b", "WORKDIR /usr", "EXPOSE 53/udp")
    pyrun.ok("commit", *(word for change in changes for word in ("-c", change)), "one", "committed:1")
    config = inspect(pyrun, "committed:1")["Config"]
    assert (config["Cmd"], config["WorkingDir"]) == (["echo", "changed"], "/usr")
    assert "X=y" in config["Env"]
    bad = pyrun("commit", "-c", "RUN true", "one", "committed:2")
    assert (bad.rc, bad.out) == (125, "")
    assert "invalid change 'RUN true': RUN cannot be used here" in bad.err
    assert pyrun("image", "inspect", "committed:2").rc == 1


def test_mounts_and_their_places_are_not_committed(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """Not what is in volumes, nor what was made to mount them on; diff does not show that either."""
    (tmp_path / "file").write_text("host")
    mounts = (
        "-v",
        "/anonymous",
        "-v",
        f"{tmp_path}:/some/where",
        "-v",
        f"{tmp_path}/file:/etc/mounted",
        "--tmpfs",
        "/t",
    )
    script = "touch /anonymous/a /some/where/b /t/c /some/own; ls /etc/mounted"
    run(pyrun, "--name", "one", *mounts, base_image, "sh", "-c", script)
    assert pyrun.ok("diff", "one").splitlines() == ["A /some", "A /some/own"]
    pyrun.ok("commit", "one", "committed:1")
    assert list(layer(pyrun, "committed:1")) == ["some", "some/own"]
    assert inspect(pyrun, "committed:1")["Config"]["Volumes"] == {"/anonymous": {}}
    run(pyrun, "--name", "bare", base_image, "true")
    assert pyrun.ok("diff", "bare") == ""


def test_commit_freezes_a_running_container_and_lets_it_go_on(pyrun: Pyrun, base_image: str) -> None:
    """A program that writes two files in step is never caught between them; with -p=false it is not frozen."""
    script = "i=0; while :; do i=$((i+1)); echo $i >/a; echo $i >/b; done"
    run(pyrun, "-d", "--name", "writer", base_image, "sh", "-c", script)
    for number in range(3):
        pyrun.ok("commit", "writer", f"committed:{number}")
        # `>` empties a file before it is written, so that the pair is at most one step apart
        both = run(pyrun, "--rm", f"committed:{number}", "sh", "-c", "cat /a /b").split()
        assert len(both) in (1, 2)
        if len(both) == 2:
            assert abs(int(both[0]) - int(both[1])) <= 1
    assert pyrun.ok("inspect", "-f", "{{.State.Status}}", "writer") == "running"
    before = pyrun.ok("exec", "writer", "cat", "/a")
    time.sleep(0.2)
    assert pyrun.ok("exec", "writer", "cat", "/a") != before
    pyrun.ok("commit", "-p=false", "writer", "committed:3")
    pyrun.ok("pause", "writer")
    pyrun.ok("commit", "writer", "committed:4")
    assert pyrun.ok("inspect", "-f", "{{.State.Status}}", "writer") == "paused"


def test_commits_of_several_kinds_stack_up(pyrun: Pyrun, base_image: str) -> None:
    """Whiteouts, a directory that replaces one, links and owners, each over the one before."""
    steps = (
        "mkdir -p /d/e; echo 1 >/d/one; echo 2 >/d/e/two; chown 3:4 /d/one; ln /d/one /d/hard; chmod 4711 /d/e/two",
        "rm -r /d/e; mkdir /d/e; echo 3 >/d/e/three",
        "rm -r /d; echo file >/d",
        "rm /d; mkdir /d; ln -s /etc/passwd /d/link",
    )
    seen = (
        "stat -c '%u:%g %h' /d/one; stat -c %a /d/e/two",
        "ls /d/e",
        "cat /d",
        "ls /d; readlink /d/link",
    )
    says = ("3:4 2\n4711", "three", "file", "link\n/etc/passwd")
    image = base_image
    for number, (step, look, says_so) in enumerate(zip(steps, seen, says, strict=True)):
        run(pyrun, "--name", f"step{number}", image, "sh", "-c", step)
        image = f"committed:{number}"
        pyrun.ok("commit", f"step{number}", image)
        assert run(pyrun, "--rm", image, "sh", "-c", look) == says_so
    assert run(pyrun, "--rm", "committed:0", "sh", "-c", seen[0]) == says[0]


def test_the_root_directory_is_the_image_s(pyrun: Pyrun, busybox_tar: str, tmp_path: Path) -> None:
    """Its owner and mode, in a container and after commit and build; whatever the caller's umask is."""
    subprocess.run(["tar", "-C", str(tmp_path), "-xf", busybox_tar, "--one-top-level=root"], check=True)
    os.chmod(tmp_path / "root", 0o1777)
    os.chown(tmp_path / "root", 5, 6)
    subprocess.run(["tar", "-C", str(tmp_path / "root"), "-cf", str(tmp_path / "root.tar"), "."], check=True)
    pyrun.ok("import", str(tmp_path / "root.tar"), "rooted:1")
    look = ("stat", "-c", "%a %u:%g", "/")
    before = os.umask(0o077)
    try:
        assert run(pyrun, "--rm", "-u", "1000", "rooted:1", *look) == "1777 5:6"
        run(pyrun, "--name", "one", "rooted:1", "sh", "-c", "echo >/bin/x")
        pyrun.ok("commit", "one", "rooted:2")
        (tmp_path / "Dockerfile").write_text("FROM rooted:1\nCOPY Dockerfile /bin/\n")
        pyrun.ok("build", "-q", "-t", "rooted:3", str(tmp_path))
    finally:
        os.umask(before)
    for image in ("rooted:2", "rooted:3"):
        assert run(pyrun, "--rm", "-u", "1000", image, *look) == "1777 5:6"
        assert next(iter(layer(pyrun, image))) == "bin"


def test_a_commit_that_fails_changes_nothing(pyrun: Pyrun, base_image: str) -> None:
    """A file that no layer can hold is named; the container runs on and no image appears."""
    run(pyrun, "-d", "--name", "one", base_image, "sh", "-c", "touch /.wh.x; sleep 100")
    deadline = time.monotonic() + 10
    while not (done := pyrun("commit", "one", "committed:1")).rc and time.monotonic() < deadline:
        time.sleep(0.1)
    assert done.rc == 1
    assert done.err.splitlines()[0] == (
        "pyrun: '.wh.x': in a layer, a name that begins with .wh. stands for a deleted file"
    )
    assert pyrun.ok("inspect", "-f", "{{.State.Status}}", "one") == "running"
    for words, why in (
        (("one", "UPPER"), "upper"),
        (("one", f"x@sha256:{'a' * 64}"), "a new image has no digest yet"),
        (("nosuch",), "no such container 'nosuch'"),
    ):
        bad = pyrun("commit", *words)
        assert bad.rc in (1, 125)
        assert why in bad.err.lower()
    assert os.listdir(f"{pyrun.paths.data}/images/ingest") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_commit_that_is_killed_leaves_the_container_usable(pyrun: Pyrun, base_image: str, number: int) -> None:
    """^C and SIGTERM thaw it; after SIGKILL it is paused, for unpause. The next command finds a whole store."""
    run(pyrun, "-d", "--name", "one", base_image, "sh", "-c", "truncate -s 20G /large; exec sleep 100")
    deadline = time.monotonic() + 20
    while pyrun.ok("diff", "one") != "A /large" and time.monotonic() < deadline:
        time.sleep(0.05)
    process = pyrun.popen("commit", "one", "committed:1")
    while pyrun.ok("inspect", "-f", "{{.State.Status}}", "one") != "paused" and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(20) in (130, 128 + number, -number)
    status = pyrun.ok("inspect", "-f", "{{.State.Status}}", "one")
    assert status == ("paused" if number == signal.SIGKILL else "running")
    if status == "paused":
        pyrun.ok("unpause", "one")
    assert pyrun.ok("exec", "one", "echo", "alive") == "alive"
    pyrun.ok("exec", "one", "rm", "/large")
    pyrun.ok("commit", "one", "committed:2")
    assert os.listdir(f"{pyrun.paths.data}/images/ingest") == []
    assert pyrun("image", "inspect", "committed:1").rc == 1


def test_diff_of_containers_and_images(pyrun: Pyrun, base_image: str) -> None:
    """Lines, podman's JSON, and the same changes seen as an image's."""
    script = "echo n >/new; rm /etc/passwd; echo m >>/etc/group; mkdir -p /x/y"
    run(pyrun, "--name", "one", base_image, "sh", "-c", script)
    lines = ["C /etc", "C /etc/group", "D /etc/passwd", "A /new", "A /x", "A /x/y"]
    assert pyrun.ok("diff", "one").splitlines() == lines
    assert pyrun.ok("container", "diff", "one").splitlines() == lines
    found = json.loads(pyrun.ok("diff", "--format", "json", "one"))
    assert found == {
        "changed": ["/etc", "/etc/group"], "deleted": ["/etc/passwd"], "added": ["/new", "/x", "/x/y"],
    }  # fmt: skip
    pyrun.ok("commit", "one", "committed:1")
    assert pyrun.ok("image", "diff", "committed:1").splitlines() == lines
    assert pyrun.ok("image", "diff", "committed:1", base_image).splitlines() == lines
    back = pyrun.ok("image", "diff", base_image, "committed:1").splitlines()
    assert back == ["C /etc", "C /etc/group", "A /etc/passwd", "D /new", "D /x"]
    assert pyrun.ok("image", "diff", base_image, base_image) == ""


def test_diff_of_a_running_container_is_what_it_has_just_written(pyrun: Pyrun, base_image: str) -> None:
    """No need to stop it."""
    run(pyrun, "-d", "--name", "one", base_image, "sleep", "100")
    pyrun.ok("exec", "one", "touch", "/here")
    assert pyrun.ok("diff", "one") == "A /here"


def test_export_is_the_whole_tree_and_import_takes_it(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """To a file and to stdout, of a stopped and of a running container: the same bytes; volumes are empty in it."""
    volumes = ("-v", "/vol")
    run(pyrun, "--name", "one", *volumes, base_image, "sh", "-c", "echo n >/new; rm /etc/passwd; touch /vol/x")
    pyrun.ok("export", "-o", str(tmp_path / "one.tar"), "one")
    streamed = subprocess.run([pyrun.command, "export", "one"], env=pyrun.environ, capture_output=True, check=True)
    assert streamed.stdout == (tmp_path / "one.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        names = set(archive.getnames())
    assert {"./", "new", "bin/busybox", "vol"} - {"./"} <= names
    assert not {"etc/passwd", "vol/x"} & names
    pyrun.ok("import", "-c", 'CMD ["cat", "/new"]', str(tmp_path / "one.tar"), "exported:1")
    assert run(pyrun, "--rm", "exported:1") == "n"
    run(pyrun, "-d", "--name", "two", base_image, "sleep", "100")
    pyrun.ok("exec", "two", "touch", "/running")
    done = subprocess.run([pyrun.command, "export", "two"], env=pyrun.environ, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "running" in archive.getnames()


def test_export_that_fails_leaves_no_file(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """No container, no directory to write to."""
    assert pyrun("export", "-o", str(tmp_path / "x.tar"), "nosuch").err.startswith("pyrun: no such container 'nosuch'")
    assert os.listdir(tmp_path) == []
    pyrun.ok("create", "--name", "one", base_image, "true")
    bad = pyrun("export", "-o", str(tmp_path / "no" / "x.tar"), "one")
    assert bad.err == f"pyrun: export to {tmp_path}/no/x.tar: no such file or directory\n"
