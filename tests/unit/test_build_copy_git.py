# SPDX-License-Identifier: Apache-2.0
"""Which strings are git URLs, what they ask for, and which are refused before git sees them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyrun.rootfs.build.giturl import Repository, parse
from pyrun.runtime.errors import UsageError

URLS = [
    ("https://github.com/a/b.git", Repository("https://github.com/a/b.git")),
    ("http://host/b.git#v1", Repository("http://host/b.git", "v1")),
    ("https://host/b.git#:sub/dir", Repository("https://host/b.git", "", "sub/dir")),
    ("https://host/b.git#main:sub", Repository("https://host/b.git", "main", "sub")),
    ("git@github.com:a/b.git#dev", Repository("git@github.com:a/b.git", "dev")),
    ("ssh://git@host:2222/a/b", Repository("ssh://git@host:2222/a/b")),
    ("git://host/a/b", Repository("git://host/a/b")),
    ("github.com/a/b", Repository("https://github.com/a/b", maybe_local=True)),
    ("https://host/b.git?ref=v1&subdir=x", Repository("https://host/b.git", "v1", "x")),
    ("https://host/b.git?tag=v1", Repository("https://host/b.git", "refs/tags/v1")),
    ("https://host/b.git?branch=refs/heads/x", Repository("https://host/b.git", "refs/heads/x")),
    (
        "https://host/b.git?commit=0123456789abcdef&keep-git-dir&submodules=false",
        Repository("https://host/b.git", commit="0123456789abcdef", keep_git=True, submodules=False),
    ),
]


@pytest.mark.parametrize(("text", "expected"), URLS)
def test_git_urls(text: str, expected: Repository) -> None:
    """All of BuildKit's forms, with fragment and query."""
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text", [".", "dir", "./x.git", "../b.git", "/srv/b.git", "https://host/a.tar.gz", "ftp://host/b.git", "file:///srv/b.git",
             "ext::sh -c id", "a:b", "user@host", "https://host/a#b.git"]
)  # fmt: skip
def test_everything_else_is_none(text: str) -> None:
    """Directories, plain URLs and protocols that git would take but that are not on the list."""
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "https://host/b.git#--upload-pack=id", "https://host/b.git#-x", "https://host/b.git#a..b", "https://host/b.git#:../x",
        "https://host/b.git#main:a/../../x", "https://host/b.git?ref=-x", "https://host/b.git?subdir=../../etc",
        "https://-oProxyCommand=id/b.git", "ssh://u@-oProxyCommand=id/b@c", "ssh://-oProxyCommand=id/b", "ssh://git@-oProxyCommand=id/b",
        "https://host/b.git?ref=a&ref=b", "https://host/b.git?what=1", "https://host/b.git#a?ref=b\n", "https://host/b.git?ref=",
        "https://host/b.git?commit=xyz", "https://host/b.git?keep-git-dir=maybe", "https://host/b.git?tag=a&branch=b",
        "https://host/b.git#a b", "https://host/b.git#a:b\x1b[2J", "git@-x:y#z", "-u@h:x", "https://host/b.git#a@{1}", "https:///.git?ref=a^",
    ],
)  # fmt: skip
def test_what_git_could_misread_is_refused(text: str) -> None:
    """Options in place of hosts and refs, paths out of the repository, contradictions, control characters."""
    with pytest.raises(UsageError, match="git URL"):
        parse(text)


def test_file_urls_only_when_allowed() -> None:
    """A file URL reads any repository of this machine."""
    assert parse("file:///srv/b.git#main", allow_file=True) == Repository("file:///srv/b.git", "main")


PIECES = [
    "https://", "ssh://", "git@", "github.com/", "host", "/a/b", ".git", "#", "?", ":", "-", "..", "ref=", "&",
    "subdir=", "%2e", "%2d", "@", "~", "\n", "commit=", "0123456789ab", "/", "tag=", "x",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
@example("ssh://https://-")  # a path that looks like a URL is a path
def test_whatever_is_taken_is_safe(text: str) -> None:
    """No parsed URL holds anything that git, ssh or a path could misread."""
    try:
        found = parse(text)
    except UsageError:
        return
    if found is not None:
        assert not found.ref.startswith("-")
        assert not found.remote.startswith("-")
        host = (found.remote.partition("://")[2] or found.remote).partition("/")[0]
        assert not host.rpartition("@")[2].startswith("-")  # ssh would take it for an option
        assert ".." not in found.subdir.split("/")
        assert ".." not in found.ref
        assert found.remote.isprintable()
        assert (found.ref + found.subdir).isprintable()
