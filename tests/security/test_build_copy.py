# SPDX-License-Identifier: Apache-2.0
"""Hostile contexts, images, archives, URLs and repositories: nothing outside is read, written or run.

PEERS' rows: CVE-2026-33747, GHSA-4vrq-3vrq-g6gg, GHSA-hw3h-2gp9-cxpv (buildkit), CVE-2026-44517 (buildah): paths that
lead out of a context, git's `#ref:subdir`, options in place of refs, archives as contexts.
"""

from __future__ import annotations

import errno
import io
import os
import subprocess
import threading
from pathlib import Path

import pytest

import tars
from buildtrees import Build, make
from pyrun.rootfs.build import contents, copy, git, scan
from pyrun.rootfs.build.context import open_context
from pyrun.rootfs.build.copy import CopyRequest
from pyrun.rootfs.build.giturl import Repository
from pyrun.rootfs.build.source import Tree
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.limits import ArchiveError
from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from requires import requires

pytestmark = requires(root=True)


def intact(build: Build) -> None:
    """Nothing was written beside the layer."""
    assert sorted(os.listdir(build.outside)) == ["precious"]
    assert (build.outside / "precious").read_text() == "untouched"


LEAVING = [
    {"secret": ("link", "{outside}/precious")},
    {"secret": ("link", "../outside/precious")},
    {"up": ("link", "../outside"), "secret": ("link", "up/precious")},
    {"secret": ("link", "/proc/self/root{outside}/precious")},
]


@pytest.mark.parametrize("files", LEAVING)
def test_symlinks_of_a_context_do_not_lead_out(tmp_path: Path, files: dict[str, tuple[str, str]]) -> None:
    """Named as a source, a symlink is followed below the context's root, where there is no such file."""
    build = Build(tmp_path, {})
    make(build.context, {name: (kind, text.format(outside=build.outside)) for name, (kind, text) in files.items()})
    for source in ("secret", "sec*", "up/precious", "up/../../outside/precious", "../outside/precious"):
        with build.tree() as tree, pytest.raises(NotFound):
            build.plan(tree, source)


def test_absolute_symlinks_of_a_stage_stay_in_it(tmp_path: Path) -> None:
    """/etc/passwd of a stage is the stage's, and a link to /etc is its /etc."""
    stage = make(tmp_path / "stage", {"etc/passwd": "the stage's", "e": ("link", "/etc"), "r": ("link", "../../../..")})
    build = Build(tmp_path / "b", {})
    for source in ("e/passwd", "r/etc/passwd", "/etc/passwd", "../../etc/passwd"):
        assert build.copy(source, to="/x", tree=Tree.layers([str(stage)], "stage")) == {"x": "the stage's"}


@pytest.mark.parametrize(
    "target", ["../../../outside", "{outside}", "/proc/self/root{outside}", "../../../../../../.."]
)
def test_symlinks_of_the_image_do_not_lead_out(tmp_path: Path, target: str) -> None:
    """COPY to /app, where the image says /app -> ../../../outside: lands inside."""
    build = Build(tmp_path, {"f": "f", "d/g": "g"})
    make(
        build.lower,
        {"app": ("link", target.format(outside=build.outside)), "a/b": ("link", target.format(outside=build.outside))},
    )
    for source, to in (("f", "/app/"), ("f", "/app/x"), ("d", "/app/y/z/"), ("f", "/a/b/c/"), ("d", "/a/b")):
        build.copy(source, to=to)
        intact(build)


def test_a_symlink_below_the_destination_is_never_followed(tmp_path: Path) -> None:
    """A directory of the context meets a symlink of the image: refused. A file replaces it."""
    build = Build(tmp_path, {"d/evil/precious": "overwritten", "f/evil": "a file"}, {"app": None})
    make(build.lower, {"app/evil": ("link", str(build.outside))})
    with build.tree() as tree, pytest.raises(Conflict, match="file or symlink"):
        build.plan(tree, "d", to="/app")
    assert build.copy("f", to="/app") == {"app/evil": "a file"}
    intact(build)


def test_a_symlink_that_an_earlier_source_brings_is_not_followed(tmp_path: Path) -> None:
    """Source one plants dir -> outside, source two writes into dir."""
    build = Build(tmp_path, {"two/dir/precious": "overwritten"})
    make(build.context, {"one/dir": ("link", str(build.outside))})
    with build.tree() as tree, pytest.raises(Conflict):
        build.plan(tree, "one", "two", to="/t")
    intact(build)


def test_a_symlink_that_an_archive_brings_is_not_followed(tmp_path: Path) -> None:
    """ADD evil.tar two/ /t/: what is in the archive is not known when the copy is planned."""
    build = Build(tmp_path, {"two/dir/precious": "overwritten", "two/dir2/x": "x"})
    evil = tars.tar(tars.member("dir", "symlink", linkname=str(build.outside)))
    (build.context / "evil.tar").write_bytes(evil)
    build.fs.mkdir()
    with build.tree() as tree:
        plan = build.plan(tree, "evil.tar", "two", to="/t/", unpack=True)
        with pytest.raises(Conflict, match="not a directory"):
            copy.apply(plan, str(build.fs), [str(build.lower)])
    intact(build)


ARCHIVES = {
    "dot dot": [tars.member("../../../outside/x", data=b"x")],
    "absolute": [tars.member("/outside/x", data=b"x")],
    "through a symlink": [tars.member("l", "symlink", linkname="../../../outside"), tars.member("l/x", data=b"x")],
    "through an absolute symlink": [tars.member("l", "symlink", linkname="OUTSIDE"), tars.member("l/x", data=b"x")],
    "a hard link out": [tars.member("h", "hardlink", linkname="../../outside/precious"), tars.member("h", data=b"x")],
    "a hard link through a symlink": [
        tars.member("l", "symlink", linkname="OUTSIDE"), tars.member("h", "hardlink", linkname="l/precious"),
    ],
    "the destination as a symlink": [tars.member(".", "symlink", linkname="OUTSIDE"), tars.member("x", data=b"x")],
    "an overlay's attribute": [tars.member("d", "dir", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/x"})],
    "a deletion": [tars.member(".wh.passwd")],
}  # fmt: skip


@pytest.mark.parametrize("name", list(ARCHIVES))
def test_archives_write_inside_or_fail(tmp_path: Path, name: str) -> None:
    """ADD of a hostile archive, and the same as a context: an error that names the entry, or a file inside."""
    build = Build(tmp_path, {})
    members = ARCHIVES[name]
    for info, _ in members:
        info.linkname = info.linkname.replace("OUTSIDE", str(build.outside))
    data = tars.tar(*members)
    (build.context / "evil.tar").write_bytes(data)
    build.fs.mkdir()
    with build.tree() as tree:
        plan = build.plan(tree, "evil.tar", to="/a/b/", unpack=True)
        said = ""
        try:
            copy.apply(plan, str(build.fs), [str(build.lower)])
        except ArchiveError as error:
            said = str(error)
        assert said == "" or "archive entry" in said or "hard link to" in said
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    try:
        open_context("-", stdin=io.BytesIO(data), scratch=str(scratch)).close()
    except PyrunError:
        pass
    intact(build)


def test_fifos_and_devices_are_never_opened(tmp_path: Path) -> None:
    """A FIFO without a writer would block for ever; opening a device may act. They are only looked at and made anew."""
    build = Build(tmp_path, {"d/pipe": ("fifo", 0), "d/f": "f"})
    os.mknod(build.context / "d/tape", 0o20600, os.makedev(9, 200))
    found = build.copy("d", "d/pipe", "d/tape", to="/t/", unpack=True)
    assert found["t/pipe"] == "fifo"
    assert found["t/tape"] == "600 char"
    (build.context / "Dockerfile").unlink(missing_ok=True)
    os.mkfifo(build.context / "Dockerfile")
    os.mkfifo(build.context / "x.dockerignore")
    (build.context / "x").write_text("FROM scratch")
    with open_context(str(build.context), stdin=io.BytesIO(), scratch=str(tmp_path)) as context:
        with pytest.raises(PyrunError, match="cannot read 'Dockerfile'"):
            context.dockerfile()
        with pytest.raises(PyrunError, match="dockerignore"):
            context.dockerfile(str(build.context / "x"))
        with pytest.raises(PyrunError, match="not a regular file"):
            context.dockerfile(str(build.context / "Dockerfile"))


def test_what_is_swapped_between_look_and_open_is_not_taken(tmp_path: Path) -> None:
    """A file that becomes a symlink, a FIFO or a directory after the scan: an error, and nothing of the outside."""
    for number, swap in enumerate(("link", "fifo", "dir")):
        build = Build(tmp_path / str(number), {"d/f": "f"})
        build.fs.mkdir()
        with build.tree() as tree:
            plan = build.plan(tree, "d", to="/t")
            path = build.context / "d/f"
            path.unlink()
            if swap == "link":
                path.symlink_to(build.outside / "precious")
            elif swap == "fifo":
                os.mkfifo(path)
            else:
                path.mkdir()
            with pytest.raises(PyrunError, match="it changed meanwhile"):
                plan.digest()
            with pytest.raises(PyrunError, match="it changed meanwhile"):
                copy.apply(plan, str(build.fs), [])


def test_a_directory_that_is_swapped_for_a_symlink_is_not_entered(tmp_path: Path) -> None:
    """After the scan, d is replaced with a link to a directory that has a file of the same name."""
    build = Build(tmp_path, {"d/precious": "mine"})
    build.fs.mkdir()
    with build.tree() as tree:
        plan = build.plan(tree, ".", to="/t/")
        (build.context / "d").rename(tmp_path / "moved")
        (build.context / "d").symlink_to(build.outside)
        for attempt in (plan.digest, lambda: copy.apply(plan, str(build.fs), [])):
            with pytest.raises(PyrunError, match="it changed meanwhile"):
                attempt()


def test_a_context_that_swaps_all_the_time_gives_only_its_own_files(tmp_path: Path) -> None:
    """A thread exchanges a file with a symlink to the outside as fast as it can; whatever is copied is the file."""
    build = Build(tmp_path, {"d/f": "mine"})
    (build.context / "d/l").symlink_to(build.outside / "precious")
    stop = threading.Event()

    def swap() -> None:
        root = build.context / "d"
        while not stop.is_set():
            (root / "f").rename(root / "t")
            (root / "l").rename(root / "f")
            (root / "t").rename(root / "l")

    thread = threading.Thread(target=swap)
    thread.start()
    seen: set[str] = set()
    try:
        for number in range(300):
            fs = tmp_path / f"fs{number}"
            fs.mkdir()
            try:
                with build.tree() as tree:
                    plan = build.plan(tree, "d/f", to="/x")
                    plan.digest()
                    copy.apply(plan, str(fs), [])
                # the link itself may come along, as a link of the image: it is the outside's content that must not
                seen.add("a link" if (fs / "x").is_symlink() else (fs / "x").read_text())
            except PyrunError:
                pass
    finally:
        stop.set()
        thread.join()
    assert "mine" in seen
    assert seen <= {"mine", "a link"}


def test_deep_and_long_names_end_in_an_error(tmp_path: Path) -> None:
    """More levels than a layer may have are refused before the stack or the fds run out."""
    build = Build(tmp_path, {})
    fd = os.open(build.context, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with build.tree() as tree, pytest.raises(PyrunError, match="levels deep"):
        build.plan(tree, ".", to="/x/")
    with build.tree() as tree, pytest.raises(PyrunError):
        build.plan(tree, "x" * 5000)
    with build.tree() as tree, pytest.raises(PyrunError):
        build.plan(tree, "a\0b")
    (build.context / "f").write_text("f")
    for to in ("/" + "y" * 300, "/" + "y" * 300 + "/", "/y\0", "/" + "y/" * 900, "/" + "y/" * 3000):
        build.fs.mkdir(exist_ok=True)
        with build.tree() as tree, pytest.raises(PyrunError):
            copy.apply(build.plan(tree, "f", to=to), str(build.fs), [])


def test_symlink_loops_end(tmp_path: Path) -> None:
    """In sources and destinations."""
    build = Build(tmp_path, {"l": ("link", "l"), "f": "f"}, {"m": ("link", "m")})
    with build.tree() as tree, pytest.raises(PyrunError):
        build.plan(tree, "l")
    with build.tree() as tree, pytest.raises(PyrunError):
        build.plan(tree, "f", to="/m/x")


def test_a_changed_file_is_never_taken_for_the_old_one(tmp_path: Path) -> None:
    """Rewritten at once, with the same size and a restored mtime, again and again: the key follows every time."""
    from pyrun.rootfs.build.hashes import Hashes

    build = Build(tmp_path, {"f": "0000"})
    hashes = Hashes(str(tmp_path / "memory"))
    info = os.stat(build.context / "f")
    keys = set()
    for number in range(200):
        with open(build.context / "f", "r+") as file:
            file.write(f"{number:04d}")
        os.utime(build.context / "f", ns=(info.st_atime_ns, info.st_mtime_ns))
        with Tree.directory(str(build.context), hashes=hashes) as tree:
            keys.add(build.plan(tree, "f").digest())
    assert len(keys) == 200


# git ------------------------------------------------------------------------------------------------------------------


def repository(path: Path, *, hostile: bool = False) -> Path:
    """A repository with a file and a directory; `hostile`: hooks, and a link out of it."""
    make(path, {"f": "file", "sub/g": "g", "out": ("link", "../../../../../../etc")})

    def run(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=path, check=True, capture_output=True
        )

    run("init", "-q", "-b", "main")
    run("add", ".")
    run("commit", "-qm", "one")
    if hostile:
        for hook in ("post-checkout", "post-merge", "reference-transaction"):
            (path / ".git/hooks" / hook).write_text(f"#!/bin/sh\ntouch {path}/ran-{hook}\n")
            (path / ".git/hooks" / hook).chmod(0o755)
    return path


def test_git_urls_of_files_are_refused(tmp_path: Path) -> None:
    """Neither file:// nor a path nor ext:: reaches git; and git itself would refuse them."""
    repository(tmp_path / "r")
    for url in (f"file://{tmp_path}/r", f"{tmp_path}/r", "ext::sh -c 'touch /tmp/x'", "ftp://h/x.git"):
        with pytest.raises(PyrunError):
            git.clone(url, scratch=str(tmp_path))
    forged = Repository(f"file://{tmp_path}/r")
    with pytest.raises(PyrunError, match="not allowed"):
        git.clone(forged, scratch=str(tmp_path))


@pytest.mark.parametrize("ref", ["--upload-pack=touch ran", "-x", "a..b", "main --exec=x", "x\n", "@{u}"])
def test_refs_that_git_could_misread_never_reach_it(tmp_path: Path, ref: str) -> None:
    """As a fragment and as an argument of its own."""
    repository(tmp_path / "r")
    with pytest.raises(UsageError):
        git.clone(f"file://{tmp_path}/r", ref, scratch=str(tmp_path), allow_file=True)
    assert not (tmp_path / "r/ran").exists()


def test_the_directory_of_a_repository_is_inside_it(tmp_path: Path) -> None:
    """#ref:subdir with "..", and with a symlink out of the repository."""
    repository(tmp_path / "r")
    url = f"file://{tmp_path}/r"
    with pytest.raises(UsageError, match=r"'\.\.'"):
        git.clone(f"{url}#main:../..", scratch=str(tmp_path), allow_file=True)
    with pytest.raises(NotFound, match="no directory 'out'"):  # /etc of the checkout, which it has not
        git.clone(f"{url}#main:out", scratch=str(tmp_path), allow_file=True)
    with pytest.raises(NotFound, match="no directory 'f'"):
        git.clone(f"{url}#main:f", scratch=str(tmp_path), allow_file=True)
    found = git.clone(f"{url}#main:sub", scratch=str(tmp_path), allow_file=True)
    assert os.listdir(found) == ["g"]


def test_nothing_of_the_environment_or_a_configuration_steers_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIT_* variables, the user's and the repository's hooks and templates: none has an effect."""
    source = repository(tmp_path / "r", hostile=True)
    home = make(
        tmp_path / "home",
        {
            ".gitconfig": f"[core]\n hooksPath={tmp_path}/home/hooks\n[init]\n templateDir={tmp_path}/home/template\n"
            f'[url "file:///nowhere/"]\n insteadOf = file://\n',
            "hooks/post-checkout 755": f"#!/bin/sh\ntouch {tmp_path}/ran\n",
            "template/hooks/post-checkout 755": f"#!/bin/sh\ntouch {tmp_path}/ran\n",
        },
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {tmp_path}/ran")
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(home / "template"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    found = git.clone(f"file://{source}", scratch=str(tmp_path), allow_file=True)
    assert sorted(os.listdir(found)) == ["f", "out", "sub"]
    assert not (tmp_path / "ran").exists()
    assert not [name for name in os.listdir(source) if name.startswith("ran-")]


def test_submodules_of_files_are_refused(tmp_path: Path) -> None:
    """A repository from anywhere may not make git read this machine's repositories (CVE-2022-39253)."""
    inner, outer = repository(tmp_path / "inner"), repository(tmp_path / "outer")
    subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "submodule", "add", f"file://{inner}", "mod"],
        cwd=outer, check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "two"],
        cwd=outer, check=True, capture_output=True,
    )  # fmt: skip
    served = Repository(f"file://{outer}")
    with pytest.raises(PyrunError):
        git.clone(served, scratch=str(tmp_path))
    without = served.replace(submodules=False)
    found = git.clone(without, scratch=str(tmp_path), allow_file=True)
    assert os.listdir(os.path.join(found, "mod")) == []


def test_errors_of_the_kernel_are_told_apart(tmp_path: Path) -> None:
    """What changed under our hands is no lack of permission, and the other way round."""
    with Tree.directory(str(tmp_path)) as tree, Stack([str(tmp_path)]) as target:
        gone = scan.cannot_read(tree, (b"f",), FileNotFoundError(errno.ENOENT, "No such file or directory"))
        assert "it changed meanwhile" in str(gone)
        denied = scan.cannot_read(tree, (b"f",), PermissionError(errno.EACCES, "Permission denied"))
        assert str(denied) == "cannot read 'f' of the build context: permission denied"
        assert ".dockerignore" in denied.hint
        assert copy.plan(tree, CopyRequest((".",), "/"), target).digest().startswith("sha256:")
    assert contents.same_state(os.stat(tmp_path), os.stat(tmp_path))
