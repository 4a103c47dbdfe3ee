# SPDX-License-Identifier: Apache-2.0
"""Build contexts of every form, the Dockerfile in and outside them, .dockerignore, and ADD of archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zstandard

import tars
from buildtrees import Build, Content, make, show
from pyrun.rootfs.build import archives, copy, git
from pyrun.rootfs.build.context import Context, open_context
from pyrun.rootfs.build.copy import CopyRequest
from pyrun.rootfs.build.giturl import Repository
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.limits import ArchiveError
from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from requires import requires

pytestmark = requires(root=True)

FILES: dict[str, Content] = {"Dockerfile": "FROM scratch", "a": "a", "sub/b 755": "b", "sub/l": ("link", "b")}
PACKERS: dict[str, Any] = {
    "plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}  # fmt: skip


def archive(*, prefix: str = "") -> bytes:
    return tars.tar(
        tars.member(f"{prefix}Dockerfile", data=b"FROM scratch", uid=7),
        tars.member(f"{prefix}a", data=b"a", uid=7, gid=8),
        tars.member(f"{prefix}sub", "dir"),
        tars.member(f"{prefix}sub/b", data=b"b", mode=0o755),
        tars.member(f"{prefix}sub/l", "symlink", linkname="b"),
    )


def opened(source: str, tmp_path: Path, stdin: bytes = b"", **options: Any) -> Context:
    scratch = tmp_path / f"scratch{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    return open_context(source, stdin=io.BytesIO(stdin), scratch=str(scratch), **options)


def copied(context: Context, tmp_path: Path, *sources: str) -> dict[str, str]:
    """What COPY of everything gives."""
    fs, lower = tmp_path / "fs", tmp_path / "lower"
    fs.mkdir()
    lower.mkdir()
    with Stack([str(lower)]) as target:
        copy.apply(copy.plan(context.tree, CopyRequest(sources or (".",), "/"), target), str(fs), [str(lower)])
    with Stack([str(fs)]) as stack:
        return show(stack)


EVERYTHING = {"Dockerfile": "FROM scratch", "a": "a", "sub": "/", "sub/b": "755 b", "sub/l": "-> b"}


def test_a_directory(tmp_path: Path) -> None:
    """The most common context; a symlink to it is as good."""
    make(tmp_path / "c", FILES)
    (tmp_path / "link").symlink_to("c")
    for source in ("c", "link", "c/"):
        with opened(f"{tmp_path}/{source}", tmp_path) as context:
            assert context.dockerfile() == b"FROM scratch"
            assert context.path == "Dockerfile"
    with opened(f"{tmp_path}/link", tmp_path) as context:
        assert copied(context, tmp_path) == EVERYTHING


@pytest.mark.parametrize("packer", list(PACKERS))
@pytest.mark.parametrize("prefix", ["", "./"])
def test_an_archive_on_stdin(tmp_path: Path, packer: str, prefix: str) -> None:
    """`build - < context.tar.gz`: any compression, told by content; owners do not count, as in every context."""
    with opened("-", tmp_path, PACKERS[packer](archive(prefix=prefix))) as context:
        assert context.dockerfile() == b"FROM scratch"
        assert context.dockerfile("sub/../a") == b"a"
        assert copied(context, tmp_path) == EVERYTHING


def test_a_dockerfile_alone_on_stdin(tmp_path: Path) -> None:
    """`build - < Dockerfile`: the context is empty."""
    with opened("-", tmp_path, b"FROM scratch\nLABEL a=b\n") as context:
        assert context.dockerfile() == b"FROM scratch\nLABEL a=b\n"
        assert copied(context, tmp_path) == {}
        with pytest.raises(UsageError, match="stdin"):
            context.dockerfile("-")
        with pytest.raises(NotFound, match="no file 'other'"):
            context.dockerfile("other")


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "empty"), (b" \n", "empty"), (os.urandom(5000) + b"\0", "neither"), (archive()[:900], "truncated|neither"),
     (gzip.compress(archive())[:-20], "truncated|damaged"), (gzip.compress(b"FROM scratch"), "neither")],
)  # fmt: skip
def test_rubbish_on_stdin(tmp_path: Path, data: bytes, why: str) -> None:
    """Neither an archive nor a Dockerfile, or half of one."""
    with pytest.raises(PyrunError, match=why):
        opened("-", tmp_path, data)


def test_a_dockerfile_on_stdin_with_a_context(tmp_path: Path) -> None:
    """`build -f - .`: .dockerignore of the context counts."""
    make(tmp_path / "c", FILES | {".dockerignore": "sub\n.dockerignore"})
    with opened(str(tmp_path / "c"), tmp_path, b"FROM x") as context:
        assert context.dockerfile("-") == b"FROM x"
        assert copied(context, tmp_path) == {"Dockerfile": "FROM scratch", "a": "a"}


def test_where_the_dockerfile_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-f from the working directory, absolute, in the context, outside it; `dockerfile` when there is no Dockerfile."""
    make(tmp_path / "c", {"dockerfile": "small", "docker/Prod": "prod"})
    make(tmp_path / "w", {"Outside": "outside", "docker/Prod": "cwd"})
    monkeypatch.chdir(tmp_path / "w")
    with opened("../c", tmp_path) as context:
        assert context.dockerfile() == b"small"
        assert context.dockerfile("Outside") == b"outside"
        assert context.dockerfile("docker/Prod") == b"cwd"
        assert context.dockerfile(f"{tmp_path}/c/docker/Prod") == b"prod"
        assert context.dockerfile("../c/docker/Prod") == b"prod"
        assert context.dockerfile("dockerfile") == b"small"  # not in the working directory, but in the context
        assert context.dockerfile("Prod", cwd=str(tmp_path / "c/docker")) == b"prod"
    read, write = os.pipe()
    os.write(write, b"FROM pipe")
    os.close(write)
    with opened("../c", tmp_path) as context:  # -f <(command)
        assert context.dockerfile(f"/dev/fd/{read}") == b"FROM pipe"
    os.close(read)


def test_the_dockerfiles_own_dockerignore_wins(tmp_path: Path) -> None:
    """<Dockerfile>.dockerignore beside it, in the context or outside, replaces .dockerignore altogether."""
    make(
        tmp_path / "c",
        {"Dockerfile": "one", ".dockerignore": "a", "Other": "two", "Other.dockerignore": "b", "a": "a", "b": "b"},
    )
    make(tmp_path / "o", {"Far": "three", "Far.dockerignore": "# nothing\n"})
    everything = {"Dockerfile", ".dockerignore", "Other", "Other.dockerignore", "a", "b"}
    for path, hidden in (("", {"a"}), (f"{tmp_path}/c/Other", {"b"}), (f"{tmp_path}/o/Far", set())):
        with opened(str(tmp_path / "c"), tmp_path) as context:
            context.dockerfile(path)
            found = tmp_path / f"found{len(hidden)}{os.path.basename(path)}"
            found.mkdir()
            assert set(copied(context, found)) == everything - hidden


NOT_FOUND = [
    ({}, "", "name it with -f, or use another directory"),
    ({"DOCKERFILE": ""}, "", "there is 'DOCKERFILE': name it with -f"),
    ({"Dockerfile.prod": "", "Dockerfile.prod.dockerignore": ""}, "", "there is 'Dockerfile.prod': name it with -f"),
    ({"Containerfile": ""}, "", "there is 'Containerfile': name it with -f"),
    ({"Dockerfile.a": "", "Dockerfile.b": ""}, "", "there are Dockerfile.a, Dockerfile.b: name one with -f"),
    ({"Dockerfile.prod": ""}, "Dockerfile.prd", "there is 'Dockerfile.prod': name it with -f"),
]


@pytest.mark.parametrize(("files", "path", "hint"), NOT_FOUND)
def test_no_dockerfile(tmp_path: Path, files: dict[str, Content], path: str, hint: str) -> None:
    """Says where it was looked for, and what is there instead."""
    make(tmp_path / "c", files)
    with opened(str(tmp_path / "c"), tmp_path) as context, pytest.raises(NotFound) as caught:
        context.dockerfile(path)
    assert str(caught.value) == (f"no file '{path}'" if path else "no Dockerfile") + f" in '{tmp_path}/c'"
    assert caught.value.hint == hint


def test_a_dockerfile_that_leads_out_of_the_context_must_be_named(tmp_path: Path) -> None:
    """A symlink in a context is followed inside it only; with -f the user says that the other file is meant."""
    make(tmp_path, {"shared/Dockerfile": "FROM shared", "c/Dockerfile": ("link", "../shared/Dockerfile")})
    with opened(str(tmp_path / "c"), tmp_path) as context:
        with pytest.raises(NotFound) as caught:
            context.dockerfile()
        assert caught.value.hint == "there is 'Dockerfile': name it with -f"
        assert context.dockerfile(f"{tmp_path}/c/Dockerfile") == b"FROM shared"


def test_no_context(tmp_path: Path) -> None:
    """A missing directory, with the one that may have been meant; a file; nothing."""
    make(tmp_path, {"project/x": "", "Dockerfile": ""})
    with pytest.raises(NotFound, match="no directory") as caught:
        opened(f"{tmp_path}/projcet", tmp_path)
    assert caught.value.hint == f"did you mean '{tmp_path}/project'?"
    with pytest.raises(UsageError, match="it is a file") as usage:
        opened(f"{tmp_path}/Dockerfile", tmp_path)
    assert usage.value.hint == f"build -f {tmp_path}/Dockerfile {tmp_path}"
    with pytest.raises(UsageError, match="no build context"):
        opened("", tmp_path)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """Somebody else's file in the context: which, why, and what to do."""
    import sys
    import tempfile

    script = (
        "import os, sys, io\n"
        "from pyrun.rootfs.build import copy, modes, contents, hashes, ignore, missing\n"
        "from pyrun.rootfs.build.context import open_context\n"
        "from pyrun.rootfs.layered import Stack\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "with open_context(sys.argv[1], stdin=io.BytesIO(), scratch='/tmp') as c, Stack(['/']) as t:\n"
        "    try:\n"
        "        print(copy.plan(c.tree, copy.CopyRequest((sys.argv[2],), '/x/'), t).digest())\n"
        "    except Exception as error:\n"
        "        print(error, '|', error.hint)\n"
    )
    with tempfile.TemporaryDirectory() as place:  # pytest's own directories are closed to others
        os.chmod(place, 0o755)
        make(Path(place), {"Dockerfile": "FROM scratch", "d/secret 000": "s", "e/x": ""})
        os.chmod(f"{place}/e", 0)
        for name, expected in (("d", "d/secret"), ("e", "e"), (".", "e")):
            done = subprocess.run([sys.executable, "-c", script, place, name], capture_output=True, text=True)
            assert f"cannot read '{expected}' of the build context: permission denied" in done.stdout, done.stderr
            assert "exclude it by .dockerignore" in done.stdout


# Archives of ADD ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", list(PACKERS))
def test_add_unpacks_archives(tmp_path: Path, packer: str) -> None:
    """Owners and modes are the archive's, missing directories 0755 0:0; COPY copies the file."""
    data = PACKERS[packer](archive())
    build = Build(tmp_path, {"x.bin": data})
    expected = {
        "t": "/",
        "t/Dockerfile": "7:0 FROM scratch",
        "t/a": "7:8 a",
        "t/sub": "/",
        "t/sub/b": "755 b",
        "t/sub/l": "-> b",
    }
    assert build.copy("x.bin", to="/t", unpack=True) == expected
    owned = build.copy("x.bin", to="/t", unpack=True, owner=(1, 2))
    assert {text.split()[-2 if "1:2" in text.split()[-2:] else 0] for text in owned.values()} >= {"1:2"}
    with build.tree() as tree:
        plan = build.plan(tree, "x.bin", to="/t")
        fs = tmp_path / "whole"
        fs.mkdir()
        copy.apply(plan, str(fs), [str(build.lower)])
        assert (fs / "t").read_bytes() == data


def test_add_merges_archives_into_the_image(tmp_path: Path) -> None:
    """Directories merge, all else replaces what is there; symlinked directories on the way are followed inside."""
    build = Build(
        tmp_path,
        {},
        {"etc/old": "old", "etc/conf": "before", "lib": ("link", "usr/lib"), "usr/lib/l": "l", "file": "file"},
    )  # fmt: skip
    data = tars.tar(
        tars.member("etc/conf", data=b"after"), tars.member("lib/new", data=b"new"), tars.member("file", "dir"),
        tars.member("file/in", data=b"in"), tars.member("h1", data=b"h"), tars.member("h2", "hardlink", linkname="h1"),
    )  # fmt: skip
    (build.context / "r.tar").write_bytes(data)
    assert build.copy("r.tar", to="/", unpack=True) == {
        "etc/conf": "after", "usr/lib/new": "new", "file": "/", "file/in": "in", "h1": "h", "h2": "= h1",
    }  # fmt: skip


def test_the_key_of_an_archive_is_its_content(tmp_path: Path) -> None:
    """A byte of the archive counts, its own mode does not; and unpacking is not copying."""
    build = Build(tmp_path, {"x.tar": archive()})
    first = build.digest("x.tar", unpack=True)
    (build.context / "x.tar").chmod(0o600)
    assert build.digest("x.tar", unpack=True) == first
    assert build.digest("x.tar") != first
    (build.context / "x.tar").write_bytes(archive(prefix="./"))
    assert build.digest("x.tar", unpack=True) != first


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        bytes(1024),
        bytes(10240),
        gzip.compress(b"text"),
        b"\x7fELF" * 1000,
        b"\x1f\x8b\x08rubbish",
        b"BZh",
    ],
)
def test_what_is_no_archive_is_copied(tmp_path: Path, data: bytes) -> None:
    """Known by content: an empty file, zeros, a compressed text."""
    assert not archives.is_archive(io.BytesIO(data))
    build = Build(tmp_path, {"x.tar": data})
    with build.tree() as tree:
        plan = build.plan(tree, "x.tar", to="/t/", unpack=True)
        build.fs.mkdir()
        copy.apply(plan, str(build.fs), [str(build.lower)])
    assert (build.fs / "t/x.tar").read_bytes() == data


def test_a_damaged_archive_names_itself(tmp_path: Path) -> None:
    """Half an archive begins well: the error comes when it ends."""
    big = tars.tar(tars.member("a", data=b"a"), tars.member("b", data=os.urandom(300_000)))
    build = Build(tmp_path, {"x.tgz": gzip.compress(big)[:-9000]})
    build.fs.mkdir()
    with build.tree() as tree:
        plan = build.plan(tree, "x.tgz", to="/", unpack=True)
        with pytest.raises(ArchiveError, match="truncated") as caught:
            copy.apply(plan, str(build.fs), [])
    assert caught.value.__notes__ == ["in x.tgz of the build context"]


def test_an_archive_that_changes_between_key_and_copy_is_refused(tmp_path: Path) -> None:
    """What its entries were is not known afterwards, so no key can be given."""
    build = Build(tmp_path, {"x.tar": archive()})
    build.fs.mkdir()
    with build.tree() as tree:
        plan = build.plan(tree, "x.tar", unpack=True)
        plan.digest()
        (build.context / "x.tar").write_bytes(archive(prefix="./"))
        with pytest.raises(Conflict, match="changed meanwhile"):
            copy.apply(plan, str(build.fs), [])


# git ------------------------------------------------------------------------------------------------------------------


def repository(path: Path) -> Path:
    """Branches main and dev, a tag, a directory, an executable, a symlink."""
    make(path, FILES)

    def run(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=path, check=True, capture_output=True
        )

    run("init", "-q", "-b", "main")
    run("add", ".")
    run("commit", "-qm", "one")
    run("tag", "v1")
    run("checkout", "-qb", "dev")
    make(path, {"a": "dev"})
    run("commit", "-qam", "two")
    run("checkout", "-q", "main")
    return path


def head(path: Path, ref: str) -> str:
    return subprocess.run(
        ["git", "rev-parse", ref], cwd=path, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_repository_as_context(tmp_path: Path) -> None:
    """Branch, tag, commit, directory; .git is not there."""
    path = repository(tmp_path / "r")
    url = f"file://{path}"
    commit = head(path, "dev")
    everything = EVERYTHING
    cases = [
        ("", everything), ("#main", everything), ("#v1", everything), ("#refs/tags/v1", everything),
        ("#dev", everything | {"a": "dev"}), (f"#{commit}", everything | {"a": "dev"}),
        (f"#{commit[:9]}", everything | {"a": "dev"}), ("#:sub", {"b": "755 b", "l": "-> b"}),
        ("#dev:sub", {"b": "755 b", "l": "-> b"}), ("?ref=dev&subdir=sub", {"b": "755 b", "l": "-> b"}),
        (f"?branch=dev&commit={commit}", everything | {"a": "dev"}),
    ]  # fmt: skip
    for number, (rest, expected) in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        with opened(url + rest, place, allow_file=True) as context:
            assert copied(context, place) == expected, rest


def test_what_a_repository_does_not_have(tmp_path: Path) -> None:
    """A ref, a commit, a directory, the repository itself; a commit that is another one."""
    path = repository(tmp_path / "r")
    url = f"file://{path}"
    for rest in ("#nope", "#0123456789", "#:nope", "#refs/heads/nope"):
        with pytest.raises(NotFound, match="nope|0123456789"):
            opened(url + rest, tmp_path, allow_file=True)
    with pytest.raises(PyrunError, match="is commit"):
        opened(f"{url}?ref=main&commit={head(path, 'dev')}", tmp_path, allow_file=True)
    with pytest.raises(PyrunError, match="no such repository"):
        opened(f"file://{tmp_path}/none", tmp_path, allow_file=True)


def test_a_machine_without_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is not needed for anything else, so it may be missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PyrunError, match="there is no git on this machine"):
        opened("https://host.invalid/x.git", tmp_path)


def test_git_is_kept_when_asked(tmp_path: Path) -> None:
    """--keep-git-dir, or ?keep-git-dir=true."""
    path = repository(tmp_path / "r")
    kept = git.clone(f"file://{path}", keep_git_dir=True, scratch=str(tmp_path), allow_file=True)
    assert os.path.isdir(os.path.join(kept, ".git"))
    assert os.path.isdir(
        os.path.join(git.clone(f"file://{path}?keep-git-dir", scratch=str(tmp_path), allow_file=True), ".git")
    )
    assert ".git" not in os.listdir(git.clone(Repository(f"file://{path}"), scratch=str(tmp_path), allow_file=True))


def test_unreachable_repositories_say_why(tmp_path: Path) -> None:
    """A refused connection is not git's whole output."""
    with pytest.raises(
        PyrunError, match=r"clone http://127.0.0.1:1/x.git: (connection refused|cannot connect to the server)"
    ):
        opened("http://127.0.0.1:1/x.git", tmp_path)


def test_modes_are_those_of_the_umask_git_has(tmp_path: Path) -> None:
    """Files of a repository are 0644 or 0755 whatever the umask is, so that the content key is the same everywhere."""
    path = repository(tmp_path / "r")
    before = os.umask(0o077)
    try:
        found = git.clone(f"file://{path}", scratch=str(tmp_path), allow_file=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(f"{found}/a").st_mode) == 0o644
    assert stat.S_IMODE(os.stat(f"{found}/sub").st_mode) == 0o755
