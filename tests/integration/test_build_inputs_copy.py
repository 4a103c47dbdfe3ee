# SPDX-License-Identifier: Apache-2.0
"""COPY by docker's and BuildKit's rules: what goes where, with which mode and owner, and what is refused."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from buildtrees import Build, Content, make, show
from pyrun.rootfs.build import copy
from pyrun.rootfs.build.copy import CopyRequest
from pyrun.rootfs.build.source import Tree
from pyrun.rootfs.layered import Stack
from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from requires import requires

pytestmark = requires(root=True)

CONTEXT: dict[str, Content] = {
    "a.txt": "a", "b.txt": "b", "run.sh 755": "#!", "d/x": "x", "d/y 600": "y", "d/sub 700": None, "d/sub/z": "z",
    "d/ln": ("link", "x"), "link": ("link", "a.txt"), "dlink": ("link", "d"), "arr[0].txt": "arr", "d2/x": "x2",
}  # fmt: skip
IMAGE: dict[str, Content] = {
    "app 750": None, "app/old": "old", "app/sub 700": None, "etc/passwd": "root", "lib": ("link", "usr/lib"),
    "usr/lib/l": "l", "away": ("link", "../../../etc"), "file": "file", "loose": ("link", "nowhere/deep"),
}  # fmt: skip

D = {"x": "x", "y": "600 y", "sub": "700 /", "sub/z": "z", "ln": "-> x"}


def below(prefix: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{prefix}/{name}": text for name, text in files.items()}


RULES = [
    # a file: onto a name, into a directory that is there, that is named with a slash, whose parents are missing
    (("a.txt",), "/new", {}, {"new": "a"}),
    (("a.txt",), "/app", {}, {"app/a.txt": "a"}),
    (("a.txt",), "/app/", {}, {"app/a.txt": "a"}),
    (("a.txt",), "/p/q/", {}, {"p": "/", "p/q": "/", "p/q/a.txt": "a"}),
    (("a.txt",), "/p/q/.", {}, {"p": "/", "p/q": "/", "p/q/a.txt": "a"}),
    (("a.txt",), "/p/q", {}, {"p": "/", "p/q": "a"}),
    (("a.txt",), "/file", {}, {"file": "a"}),
    (("a.txt",), "/", {}, {"a.txt": "a"}),
    (("/a.txt",), "/", {}, {"a.txt": "a"}),
    (("./d/../a.txt",), "/", {}, {"a.txt": "a"}),
    (("run.sh",), "/usr/bin/", {}, {"usr/bin": "/", "usr/bin/run.sh": "755 #!"}),
    # several
    (("a.txt", "b.txt"), "/app/", {}, {"app/a.txt": "a", "app/b.txt": "b"}),
    (("a.txt", "b.txt"), "/app", {}, {"app/a.txt": "a", "app/b.txt": "b"}),
    (("d/x", "d2/x"), "/app/", {}, {"app/x": "x2"}),
    (("d", "d2"), "/m", {}, {"m": "/", **below("m", D | {"x": "x2"})}),
    # a directory: what is in it
    (("d",), "/new", {}, {"new": "/", **below("new", D)}),
    (("d",), "/new/", {}, {"new": "/", **below("new", D)}),
    (("d/",), "/new", {}, {"new": "/", **below("new", D)}),
    (("d",), "/app", {}, below("app", {name: text for name, text in D.items() if name != "sub"})),
    (("d/sub",), "/s", {}, {"s": "/", "s/z": "z"}),
    # symlinks: followed where they are named, kept where they are found, their name stays
    (("link",), "/app/", {}, {"app/link": "a"}),
    (("link",), "/l", {}, {"l": "a"}),
    (("dlink",), "/n", {}, {"n": "/", **below("n", D)}),
    (("dlink/sub/z",), "/z", {}, {"z": "z"}),
    # symlinks of the destination: inside the image
    (("a.txt",), "/away", {}, {"etc/a.txt": "a"}),
    (("a.txt",), "/away/b", {}, {"etc/b": "a"}),
    (("d/sub",), "/lib/new", {}, {"usr/lib/new": "/", "usr/lib/new/z": "z"}),
    (("d/sub",), "/lib", {}, {"usr/lib/z": "z"}),
    (("a.txt",), "/loose", {}, {"nowhere": "/", "nowhere/deep": "a"}),
    # wildcards
    (("*.txt",), "/t/", {}, {"t": "/", "t/a.txt": "a", "t/arr[0].txt": "arr", "t/b.txt": "b"}),
    (("?.txt",), "/t/", {}, {"t": "/", "t/a.txt": "a", "t/b.txt": "b"}),
    (("arr[[]0].txt",), "/t/", {}, {"t": "/", "t/arr[0].txt": "arr"}),
    (("d*/x",), "/t/", {}, {"t": "/", "t/x": "x2"}),
    (("d/*",), "/t/", {}, {"t": "/", "t/x": "x", "t/y": "600 y", "t/z": "z", "t/ln": "x"}),
    (("l*k",), "/t/", {}, {"t": "/", "t/link": "a"}),
    (("a.txt", "no*"), "/t/", {}, {"t": "/", "t/a.txt": "a"}),
    (("no*",), "/t/", {}, {}),
    # --chown and --chmod
    (("a.txt",), "/p/q/", {"owner": (5, 6)}, {"p": "5:6 /", "p/q": "5:6 /", "p/q/a.txt": "5:6 a"}),
    (("a.txt",), "/app/", {"owner": (5, 6)}, {"app/a.txt": "5:6 a"}),
    (("d",), "/n", {"owner": (5, 6)}, {"n": "5:6 /", "n/x": "5:6 x", "n/y": "600 5:6 y", "n/sub": "700 5:6 /",
                                       "n/sub/z": "5:6 z", "n/ln": "5:6 -> x"}),
    (("a.txt",), "/n", {"chmod": "4711"}, {"n": "4711 a"}),
    (("d",), "/n", {"chmod": "750"}, {"n": "750 /", "n/x": "750 x", "n/y": "750 y", "n/sub": "750 /",
                                      "n/sub/z": "750 z", "n/ln": "-> x"}),
    (("d",), "/n", {"chmod": "go=u"}, {"n": "/", "n/x": "666 x", "n/y": "666 y", "n/sub": "777 /", "n/sub/z": "666 z",
                                       "n/ln": "-> x"}),
    (("d",), "/n", {"chmod": "a+rX"}, {"n": "/", "n/x": "x", "n/y": "y", "n/sub": "/", "n/sub/z": "z", "n/ln": "-> x"}),
    # --parents
    (("d/x", "d2/x"), "/n/", {"parents": True}, {"n": "/", "n/d": "/", "n/d/x": "x", "n/d2": "/", "n/d2/x": "x2"}),
    (("./d/./sub/z",), "/n", {"parents": True}, {"n": "/", "n/sub": "700 /", "n/sub/z": "z"}),
    (("d/sub",), "/n", {"parents": True}, {"n": "/", "n/d": "/", "n/d/sub": "700 /", "n/d/sub/z": "z"}),
    (("**/x",), "/n", {"parents": True}, {"n": "/", "n/d": "/", "n/d/x": "x", "n/d2": "/", "n/d2/x": "x2"}),
    (("d/**/z",), "/n", {"parents": True}, {"n": "/", "n/d": "/", "n/d/sub": "700 /", "n/d/sub/z": "z"}),
    (("./d/./**/z",), "/n", {"parents": True}, {"n": "/", "n/sub": "700 /", "n/sub/z": "z"}),
    (("*.txt",), "/n", {"parents": True}, {"n": "/", "n/a.txt": "a", "n/arr[0].txt": "arr", "n/b.txt": "b"}),
    (("link",), "/n", {"parents": True}, {"n": "/", "n/link": "-> a.txt"}),
    # --exclude
    (("d",), "/n", {"excludes": ("x", "sub")}, {"n": "/", "n/y": "600 y", "n/ln": "-> x"}),
    (("d",), "/n", {"excludes": ("*/z",)}, {"n": "/", "n/x": "x", "n/y": "600 y", "n/ln": "-> x", "n/sub": "700 /"}),
    (("d",), "/n", {"excludes": ("**/z", "ln")}, {"n": "/", "n/x": "x", "n/y": "600 y", "n/sub": "700 /"}),
    (("d",), "/n", {"excludes": ("*", "!sub/z")}, {"n": "/", "n/sub": "700 /", "n/sub/z": "z"}),
    (("d",), "/n", {"excludes": ("*",)}, {"n": "/"}),
    (("*.txt",), "/n/", {"excludes": ("b.*",)}, {"n": "/", "n/a.txt": "a", "n/arr[0].txt": "arr"}),
    (("d",), "/n", {"parents": True, "excludes": ("d/sub", "**/y")}, {"n": "/", "n/d": "/", "n/d/x": "x",
                                                                      "n/d/ln": "-> x"}),
]  # fmt: skip


@pytest.mark.parametrize(("sources", "to", "fields", "expected"), RULES)
def test_rules(
    tmp_path: Path, sources: tuple[str, ...], to: str, fields: dict[str, Any], expected: dict[str, str]
) -> None:
    """What is new in the image after one COPY."""
    assert Build(tmp_path, CONTEXT, IMAGE).copy(*sources, to=to, **fields) == expected


def test_an_existing_directory_keeps_its_metadata_and_those_below_take_the_sources(tmp_path: Path) -> None:
    """BuildKit: the destination itself is left as it is, but for its time; directories inside it are overwritten."""
    build = Build(tmp_path, {"d 711": None, "d/sub 700": None, "d/sub/f": "f"}, {"app 750": None, "app/sub 755": None})
    os.utime(build.context / "d", ns=(0, 10**18))
    assert build.copy("d", to="/app") == {"app/sub": "700 /", "app/sub/f": "f"}
    assert os.stat(build.fs / "app").st_mtime_ns == 10**18
    assert stat.S_IMODE(os.stat(build.fs / "app").st_mode) == 0o750


def test_parents_look_as_they_do_below(tmp_path: Path) -> None:
    """A directory that is only on the way is copied up: owner, mode, attributes, time."""
    build = Build(tmp_path, {"f": "f"}, {"a 2751": None, "a/b 700": None})
    os.chown(build.lower / "a", 7, 8)
    os.chmod(build.lower / "a", 0o2751)
    os.setxattr(build.lower / "a", "user.k", b"v")
    os.utime(build.lower / "a", ns=(0, 123))
    assert build.copy("f", to="/a/b/") == {"a/b/f": "f"}
    copied = os.stat(build.fs / "a")
    assert (copied.st_uid, copied.st_gid, stat.S_IMODE(copied.st_mode), copied.st_mtime_ns) == (7, 8, 0o2751, 123)
    assert os.getxattr(build.fs / "a", "user.k") == b"v"


def test_the_root_looks_as_it_did(tmp_path: Path) -> None:
    """The layer's own root is what a container sees as /."""
    build = Build(tmp_path, {"f": "f"}, {"x": "x"})
    os.chmod(build.lower, 0o711)
    os.chown(build.lower, 3, 4)
    os.utime(build.lower, ns=(0, 99))
    build.copy("f", to="/q/")
    info = os.stat(build.fs)
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns) == (0o711, 3, 4, 99)
    build.fs = tmp_path / "scratch"
    build.fs.mkdir(0o700)
    with build.tree() as tree:
        copy.apply(build.plan(tree, "f"), str(build.fs), [], epoch=5)
    assert stat.S_IMODE(os.stat(build.fs).st_mode) == 0o755
    assert os.stat(build.fs).st_mtime == 5


CONFLICTS = [
    ("d", "/file", "is not a directory"),  # a directory onto a file
    ("d", "/lib2", "file or symlink"),  # one of its directories onto a symlink to a directory
    ("over", "/", "is a directory in the image"),  # a file onto a directory
    ("a.txt", "/file/x", "is not a directory"),
    ("a.txt", "/file/", "is not a directory"),
]


@pytest.mark.parametrize(("source", "to", "why"), CONFLICTS)
def test_a_directory_and_something_else_never_replace_one_another(
    tmp_path: Path, source: str, to: str, why: str
) -> None:
    """The error comes before anything is written."""
    build = Build(
        tmp_path, CONTEXT | {"over/app": "file"}, IMAGE | {"lib2/sub": ("link", "../etc"), "lib2/k": "k"}
    )  # fmt: skip
    with build.tree() as tree, pytest.raises(Conflict, match=why):
        build.plan(tree, source, to=to)


def test_sources_may_conflict_with_one_another(tmp_path: Path) -> None:
    """The second source finds what the first will have written."""
    build = Build(tmp_path, {"one/x": "file", "two/x/y": "directory"})
    for sources in (("one", "two"), ("two", "one")):
        with build.tree() as tree, pytest.raises(Conflict):
            build.plan(tree, *sources, to="/t")


def test_several_files_onto_one_name_are_refused(tmp_path: Path) -> None:
    """The Dockerfile reference wants a slash; BuildKit would keep the last file alone."""
    build = Build(tmp_path, CONTEXT)
    with build.tree() as tree, pytest.raises(UsageError, match="several files") as caught:
        build.plan(tree, "a.txt", "b.txt", to="/app")
    assert caught.value.hint == "a directory ends with a slash: /app/"


MISSING = [
    ("a.tx", "did you mean a.txt?"), ("d/sub/zz", "did you mean d/sub/z?"),
    ("D/x", "did you mean d/x?"), ("no/such", ""), ("a.txt/x", ""),
    ("../secret", "nothing outside the build context can be copied: build from a directory above it, with -f"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "hint"), MISSING)
def test_a_missing_source_is_named(tmp_path: Path, source: str, hint: str) -> None:
    """Which, in what, and what may have been meant."""
    build = Build(tmp_path, CONTEXT)
    with build.tree() as tree, pytest.raises(NotFound) as caught:
        build.plan(tree, source)
    assert str(caught.value) == f"copy '{source}': no such file or directory in the build context"
    assert caught.value.hint == hint


@pytest.mark.parametrize("source", ["d/no", "d/./no", "nod/x"])
def test_a_missing_source_of_parents_is_named(tmp_path: Path, source: str) -> None:
    """--parents takes patterns, but one without a wildcard must be there."""
    build = Build(tmp_path, CONTEXT)
    with build.tree() as tree, pytest.raises(NotFound):
        build.plan(tree, source, parents=True)


IGNORES = [
    ("*.txt\n!b.txt", ".", {"b.txt": "b", "run.sh": "755 #!", "link": "-> a.txt", "d": "/", **below("d", D)}),
    ("*\n!d/sub/z", ".", {"d": "/", "d/sub": "700 /", "d/sub/z": "z"}),
    ("*\n!d", ".", {"d": "/", **below("d", D)}),
    ("d/*\n!d/x", "d", {"x": "x"}),
]


@pytest.mark.parametrize(("ignore", "source", "expected"), IGNORES)
def test_dockerignore(tmp_path: Path, ignore: str, source: str, expected: dict[str, str]) -> None:
    """What is ignored is not there; directories come along when something in them does."""
    context = {name: text for name, text in CONTEXT.items() if name not in ("arr[0].txt", "d2/x", "dlink")}
    assert Build(tmp_path, context).copy(source, ignore=ignore) == expected


def test_an_ignored_source_says_which_line(tmp_path: Path) -> None:
    """The file is there for everybody to see, so "no such file" alone would puzzle."""
    build = Build(tmp_path, CONTEXT)
    for source in ("a.txt", "link"):
        with build.tree("# comment\n\na.*\nlink") as tree, pytest.raises(NotFound) as caught:
            build.plan(tree, source)
        assert "of .dockerignore: " in caught.value.hint
    with build.tree("a.*") as tree, pytest.raises(NotFound) as caught:
        build.plan(tree, "link")
    assert caught.value.hint == "what it leads to is excluded by line 1 of .dockerignore: a.*"
    with build.tree("d") as tree:
        with pytest.raises(NotFound, match="copy 'd'"):
            build.plan(tree, "d")
        assert build.plan(tree, "d/*", "b.txt").entries == build.plan(tree, "b.txt").entries
        assert build.plan(tree, "dlin*").entries == 0


def test_a_wildcard_that_matches_a_dangling_symlink_is_an_error(tmp_path: Path) -> None:
    """It is followed as a source, and there is nothing; in a directory it is copied as it is."""
    build = Build(tmp_path, {"d/a": "a", "d/gone": ("link", "nowhere")})
    with build.tree() as tree, pytest.raises(NotFound, match="'gone' matches it, a symlink to what is not in"):
        build.plan(tree, "d/*", to="/t/")
    assert build.copy("d/*", to="/t/", ignore="d/gone") == {"t": "/", "t/a": "a"}
    assert build.copy("d", to="/t/") == {"t": "/", "t/a": "a", "t/gone": "-> nowhere"}


def test_an_archive_named_as_a_directory_of_the_image_is_unpacked(tmp_path: Path) -> None:
    """Its own name does not matter where it goes."""
    import tars

    build = Build(tmp_path, {"x.tar": tars.tar(tars.member("in", data=b"in"))}, {"t/x.tar/deep": "d"})
    assert build.copy("x.tar", to="/t", unpack=True) == {"t/in": "in"}
    with build.tree() as tree, pytest.raises(Conflict, match="is a directory in the image"):
        build.plan(tree, "x.tar", to="/t")


def test_hard_links_special_files_holes_and_attributes_are_kept(tmp_path: Path) -> None:
    """Two names of one file stay one file; FIFOs and devices are made anew; sockets are left out."""
    import socket

    build = Build(tmp_path, {"h/one": "same", "h/two": ("hard", "h/one"), "h/pipe": ("fifo", 0)})
    os.mknod(build.context / "h/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(build.context / "h/sock"))
    with open(build.context / "h/holes", "wb") as file:
        file.seek(5 << 20)
        file.write(b"x" * 10)
        file.truncate(9 << 20)
    os.setxattr(build.context / "h/one", "user.k", b"v")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(build.context / "h/holes", "security.capability", capability)
    build.copy("h", to="/h", owner=(1, 2))
    made = build.fs / "h"
    assert os.path.samefile(made / "one", made / "two")
    assert os.getxattr(made / "one", "user.k") == b"v"
    assert os.getxattr(made / "holes", "security.capability") == capability
    assert (made / "holes").read_bytes() == (build.context / "h/holes").read_bytes()
    assert os.stat(made / "holes").st_blocks * 512 < 1 << 20
    assert stat.S_ISFIFO(os.stat(made / "pipe").st_mode)
    assert os.stat(made / "null").st_rdev == os.makedev(1, 3)
    assert sorted(os.listdir(made)) == ["holes", "null", "one", "pipe", "two"]


def test_hard_links_across_directories(tmp_path: Path) -> None:
    """Whichever name sorts first, the file is written before it is linked to; each source stands for itself."""
    build = Build(tmp_path, {"h/1": "same", "h/2": ("hard", "h/1"), "hh": ("hard", "h/1"), "a/z": ("hard", "h/1")})
    assert build.copy(".", to="/t") == {
        "t": "/", "t/a": "/", "t/a/z": "same", "t/h": "/", "t/h/1": "= t/a/z", "t/h/2": "= t/a/z", "t/hh": "= t/a/z",
    }  # fmt: skip
    assert build.copy("h", "hh", to="/t/") == {"t": "/", "t/1": "same", "t/2": "= t/1", "t/hh": "same"}
    assert build.copy(".", to="/t", ignore="hh\na\nh/1") == {"t": "/", "t/h": "/", "t/h/2": "same"}


def test_times_are_kept_and_new_directories_get_the_epoch(tmp_path: Path) -> None:
    """A file keeps its time; a directory that no source has gets SOURCE_DATE_EPOCH."""
    build = Build(tmp_path, {"f": "f"})
    os.utime(build.context / "f", ns=(0, 5 * 10**9 + 7))
    build.fs.mkdir()
    with build.tree() as tree:
        copy.apply(build.plan(tree, "f", to="/p/q/"), str(build.fs), [str(build.lower)], epoch=1000)
    assert os.stat(build.fs / "p/q/f").st_mtime_ns == 5 * 10**9 + 7
    assert {os.stat(build.fs / name).st_mtime for name in ("p", "p/q")} == {1000.0}


def test_copy_from_layers_keeps_owners_and_sees_them_merged(tmp_path: Path) -> None:
    """Whiteouts, opaque directories and files replaced in an upper layer are as in the running stage."""
    low = make(tmp_path / "l0", {"s/a": "a", "s/gone": "g", "s/deep/x": "x", "s/opaque/hidden": "h", "s/kind/f": "f"})
    top = make(tmp_path / "l1", {"s/b": "b", "s/deep/y": "y", "s/opaque/seen": "s", "s/kind": "now a file"})
    os.mknod(top / "s/gone", stat.S_IFCHR, 0)
    os.setxattr(top / "s/opaque", "trusted.overlay.opaque", b"y")
    os.chown(low / "s/a", 11, 12)
    os.chown(top / "s/deep", 13, 14)
    build = Build(tmp_path / "b", {})
    assert build.copy("s", to="/t", tree=Tree.layers([str(low), str(top)], "stage 'base'")) == {
        "t": "/", "t/a": "11:12 a", "t/b": "b", "t/deep": "13:14 /", "t/deep/x": "x", "t/deep/y": "y",
        "t/kind": "now a file", "t/opaque": "/", "t/opaque/seen": "s",
    }  # fmt: skip
    found = build.copy(
        "s/deep/x", "s/a", to="/t/", tree=Tree.layers([str(low), str(top)], "stage 'base'"), owner=(0, 0)
    )
    assert found == {"t": "/", "t/a": "a", "t/x": "x"}
    with Tree.layers([str(low), str(top)], "stage 'base'") as tree, pytest.raises(NotFound, match="in stage 'base'"):
        build.plan(tree, "s/gone")


def test_deletion_marks_cannot_be_copied(tmp_path: Path) -> None:
    """A file called .wh.passwd would delete passwd wherever the image is used."""
    build = Build(tmp_path, {"d/.wh.passwd": ""})
    for source in ("d", "d/.wh.passwd"):
        with build.tree() as tree, pytest.raises(PyrunError, match=r"\.wh\."):
            build.plan(tree, source)


def test_what_changes_between_plan_and_copy_is_what_the_key_says(tmp_path: Path) -> None:
    """After apply() the content key is that of what was written, so a cache never holds other files under a key."""
    build = Build(tmp_path, {"f": "old", "g": "same"})
    (build.base / "fs").mkdir()
    with build.tree() as tree:
        plan = build.plan(tree, "f", "g", to="/x/")
        before = plan.digest()
        (build.context / "f").write_text("new!")
        copy.apply(plan, str(build.base / "fs"), [])
        assert (build.base / "fs/x/f").read_text() == "new!"
        assert plan.digest() != before
        assert plan.digest() == build.digest("f", "g")


def test_inline_files(tmp_path: Path) -> None:
    """A heredoc is a tree of one file, whatever wildcard its name looks like; its directory goes with it."""
    build = Build(tmp_path, {})
    tree = copy.inline("*", b"hello", 0o644, scratch=str(tmp_path))
    assert build.copy("*", to="/greeting", tree=tree, literal=True) == {"greeting": "hello"}
    assert not [name for name in os.listdir(tmp_path) if name.startswith("inline-")]


def test_large_files_are_copied_whole(tmp_path: Path) -> None:
    """Beyond what is read in one piece, and without holes."""
    data = os.urandom(3_000_001)
    build = Build(tmp_path, {"big": data})
    with build.tree() as tree:
        build.fs.mkdir()
        copy.apply(build.plan(tree, "big"), str(build.fs), [])
    assert (build.fs / "big").read_bytes() == data


# The content key ------------------------------------------------------------------------------------------------------


def changes(path: Path) -> dict[str, Callable[[], object]]:
    """Everything that ends up in the layer, one by one."""

    def instead(name: str, make: Callable[[Path], object]) -> Callable[[], object]:
        def change() -> None:
            (path / name).unlink()
            make(path / name)

        return change

    return {
        "a byte": lambda: (path / "d/x").write_text("X"),
        "a mode": lambda: (path / "d/x").chmod(0o600),
        "a directory's mode": lambda: (path / "d/sub").chmod(0o711),
        "a link": instead("d/ln", lambda link: link.symlink_to("y")),
        "a name": lambda: (path / "d/x").rename(path / "d/w"),
        "a new file": lambda: (path / "d/new").write_text(""),
        "a new directory": (path / "d/sub/new").mkdir,
        "one file less": (path / "d/y").unlink,
        "an attribute": lambda: os.setxattr(path / "d/x", "user.k", b"v"),
        "a directory's attribute": lambda: os.setxattr(path / "d/sub", "user.k", b"v"),
        "a hard link": instead("d/y", lambda file: file.hardlink_to(path / "d/x")),
        "a file becomes a directory": instead("d/x", Path.mkdir),
    }


@pytest.mark.parametrize("change", list(changes(Path())))
def test_the_key_changes_with(tmp_path: Path, change: str) -> None:
    """What a layer would hold decides, and nothing else."""
    build = Build(tmp_path, CONTEXT)
    before = build.digest("d")
    changes(build.context)[change]()
    assert build.digest("d") != before


def test_the_key_does_not_change_with_times_or_owners_that_do_not_count(tmp_path: Path) -> None:
    """A fresh clone of the same files hits the cache."""
    build = Build(tmp_path, CONTEXT)
    before = build.digest("d")
    for where, directories, files in os.walk(build.context):
        for name in directories + files:
            os.utime(os.path.join(where, name), ns=(1, 2), follow_symlinks=False)
            os.chown(os.path.join(where, name), 1234, 1234, follow_symlinks=False)
    assert build.digest("d") == before
    assert build.digest("d", owner=(1, 1)) != before
    assert build.digest("d", chmod="755") != before
    assert build.digest("d", ignore="d/y") != before
    assert build.digest("d", to="/other/") != before


def test_owners_of_a_stage_count(tmp_path: Path) -> None:
    """COPY --from keeps them."""
    files = make(tmp_path / "l", {"f": "f"})
    build = Build(tmp_path / "b", {})

    def key(**fields: Any) -> str:
        with Tree.layers([str(files)], "stage") as tree, Stack([str(build.lower)]) as target:
            return copy.plan(tree, CopyRequest(("f",), "/f", **fields), target).digest()

    before, forced = key(), key(owner=(3, 3))
    os.chown(files / "f", 9, 9)
    assert key() != before
    assert key(owner=(3, 3)) == forced


def test_a_rescan_reads_no_file_again(tmp_path: Path) -> None:
    """Digests come from the memory: a second build opens none of the files that did not change."""
    from pyrun.rootfs.build import contents
    from pyrun.rootfs.build.hashes import SETTLED_NS, Hashes

    build = Build(tmp_path, {f"d/{n}": str(n) for n in range(20)})
    time.sleep(SETTLED_NS / 10**9 + 0.1)
    memory = str(tmp_path / "memory")
    read: list[int] = []
    original = contents.of_file

    def counted(fd: int) -> bytes:
        read.append(fd)
        return original(fd)

    def key() -> str:
        hashes = Hashes(memory)
        with Tree.directory(str(build.context), hashes=hashes) as tree:
            found = build.plan(tree, ".", to="/x/").digest()
        hashes.save()
        return found

    contents.of_file = counted
    try:
        first = key()
        assert len(read) == 20
        assert key() == first
        assert len(read) == 20
        (build.context / "d/7").write_text("8")
        assert key() != first
        assert len(read) == 21
    finally:
        contents.of_file = original


def test_what_show_shows(tmp_path: Path) -> None:
    """The tests' own eyes: a mode and an owner are seen."""
    files = make(tmp_path, {"f 600": "x"})
    os.chown(files / "f", 1, 2)
    with Stack([str(files)]) as stack:
        assert show(stack) == {"f": "600 1:2 x"}
