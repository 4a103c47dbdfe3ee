# SPDX-License-Identifier: Apache-2.0
"""-v, --mount and --tmpfs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.runtime.engine.mount_options import parse_mount, parse_tmpfs, parse_volume, split_csv
from pyrun.runtime.engine.options import MountOption
from pyrun.runtime.errors import UsageError


def bind(source: str, target: str, **fields: object) -> MountOption:
    return MountOption("bind", source, target, **fields)  # type: ignore[arg-type]  # of the field's own type each


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/cache", MountOption("volume", "", "/cache")),
        ("cache:/cache", MountOption("volume", "cache", "/cache")),
        ("cache:/cache:ro", MountOption("volume", "cache", "/cache", readonly=True)),
        ("cache:/cache:nocopy", MountOption("volume", "cache", "/cache", nocopy=True)),
        ("/srv:/data", bind("/srv", "/data", create_source=True)),
        ("/srv/../etc/:/data/", bind("/etc", "/data", create_source=True)),
        ("/:/host:ro,rslave", bind("/", "/host", create_source=True, readonly=True, propagation="rslave")),
        ("/srv:/data:rw", bind("/srv", "/data", create_source=True)),
        ("/srv:/data:z", bind("/srv", "/data", create_source=True, selinux="z")),
        ("/srv:/data:Z,ro", bind("/srv", "/data", create_source=True, selinux="Z", readonly=True)),
        ("/srv:/data:delegated", bind("/srv", "/data", create_source=True)),
        ("/srv://data//x/.", bind("/srv", "/data/x", create_source=True)),
    ],
)
def test_volume(text: str, mount: MountOption) -> None:
    """-v [SOURCE:]TARGET[:OPTIONS]; a source with a slash in front is the host's, any other one a volume."""
    assert parse_volume(text) == mount


def test_volume_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """./data, ../data and . are below the working directory of the caller."""
    monkeypatch.chdir(tmp_path)
    assert parse_volume("./data:/data").source == str(tmp_path / "data")
    assert parse_volume(".:/data").source == str(tmp_path)
    assert parse_volume("../x:/data").source == str(tmp_path.parent / "x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected [SOURCE:]TARGET[:OPTIONS]"),
        (":", "expected [SOURCE:]TARGET[:OPTIONS]"),
        (":/data", "expected [SOURCE:]TARGET[:OPTIONS]"),
        ("/srv:", "expected [SOURCE:]TARGET[:OPTIONS]"),
        ("a:b:c:d", "expected [SOURCE:]TARGET[:OPTIONS]"),
        ("data", "target 'data' is not absolute"),
        ("/srv:data", "target 'data' is not absolute"),
        ("/srv:/", "the target cannot be /"),
        ("/srv:/..", "the target cannot be /"),
        ("/srv:/data:rox", "unknown option 'rox'"),
        ("sub/dir:/data", "'sub/dir' is no volume name"),
        ("x:/data", "'x' is no volume name"),
        ("-x:/data", "'-x' is no volume name"),
    ],
)
def test_bad_volume(text: str, why: str) -> None:
    """The line names the whole value and what is wrong with it."""
    with pytest.raises(UsageError) as caught:
        parse_volume(text)
    assert str(caught.value) == f"-v {text}: {why}"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,source=/srv,target=/data", bind("/srv", "/data")),
        ("type=bind,src=/srv,dst=/data,readonly", bind("/srv", "/data", readonly=True)),
        ("type=bind,src=/srv,destination=/data,ro=true", bind("/srv", "/data", readonly=True)),
        ("type=bind,src=/srv,dst=/data,readonly=false", bind("/srv", "/data")),
        ("src=/srv,dst=/data,type=bind,bind-propagation=shared", bind("/srv", "/data", propagation="shared")),
        ("bind-recursive=disabled,type=bind,src=/s,dst=/d", bind("/s", "/d", recursive="disabled")),
        ("type=bind,src=/s,dst=/d,bind-nonrecursive", bind("/s", "/d", recursive="disabled")),
        (
            "type=bind,src=/s,dst=/d,ro,bind-recursive=readonly",
            bind("/s", "/d", readonly=True, recursive="readonly", propagation="rprivate"),
        ),
        ("type=bind,src=/s,dst=/d,bind-create-src", bind("/s", "/d", create_source=True)),
        ("source=cache,target=/cache", MountOption("volume", "cache", "/cache")),
        ("target=/cache", MountOption("volume", "", "/cache")),
        (
            "type=volume,src=cache,dst=/c,volume-nocopy,volume-subpath=a/b",
            MountOption("volume", "cache", "/c", nocopy=True, subpath="a/b"),
        ),
        (
            'src=cache,dst=/c,volume-driver=local,"volume-opt=o=a,b",volume-opt=type=nfs,volume-label=x=y',
            MountOption(
                "volume",
                "cache",
                "/c",
                driver="local",
                driver_opts=(("o", "a,b"), ("type", "nfs")),
                labels=(("x", "y"),),
            ),
        ),
        (
            "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=0700",
            MountOption("tmpfs", "", "/t", tmpfs_size=64 << 20, tmpfs_mode=0o700),
        ),
        ("type=bind,src=/s,dst=/d,consistency=cached", bind("/s", "/d")),
    ],
)
def test_mount(text: str, mount: MountOption) -> None:
    """--mount: keys in any order, aliases, CSV quoting."""
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("type=bind,target=/d", "type=bind needs source="),
        ("type=bind,source=srv,target=/d", "source 'srv' is not absolute"),
        ("type=bnd,source=/s,target=/d", "unknown type 'bnd'"),
        ("type=bind,source=/s", "no target"),
        ("source=/s,target=/d", "'/s' is no volume name"),
        ("type=tmpfs,source=x,target=/d", "type=tmpfs takes no source"),
        ("type=bind,source=/s,target=/d,tagret=/e", "unknown key 'tagret'"),
        ("type=bind,source=/s,target=/d,readonly=maybe", "it is true or false"),
        ("type=bind,source=/s,target", "'target' needs a value"),
        ("type=bind,src=/s,dst=/d,volume-nocopy", "'volume-nocopy' is for type=volume"),
        ("type=tmpfs,dst=/d,tmpfs-mode=999", "'999' is no octal mode such as 1777"),
        ("type=tmpfs,dst=/d,tmpfs-size=lots", "not a size"),
        ("type=bind,src=/s,dst=/d,bind-propagation=private-ish", "'private-ish' is not one of private"),
        ("type=bind,src=/s,dst=/d,bind-recursive=readonly", "bind-recursive=readonly needs readonly"),
        ("type=volume,src=cc,dst=/d,volume-subpath=../x", "'../x' is not a relative path inside the volume"),
        ("", "unknown key ''"),
    ],
)
def test_bad_mount(text: str, why: str) -> None:
    """One line, with the key that is wrong; a mistyped key gets the nearest one."""
    with pytest.raises(UsageError) as caught:
        parse_mount(text)
    assert str(caught.value).startswith(f"--mount {text}: {why}")


def test_mistyped_key_is_suggested() -> None:
    """tagret is target."""
    with pytest.raises(UsageError) as caught:
        parse_mount("type=bind,tagret=/x")
    assert caught.value.hint == "did you mean 'target'?"


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/tmp", MountOption("tmpfs", "", "/tmp")),
        ("/tmp:size=64m", MountOption("tmpfs", "", "/tmp", tmpfs_size=64 << 20)),
        ("/tmp:size=10%", MountOption("tmpfs", "", "/tmp", tmpfs_options=("size=10%",))),
        (
            "/tmp:rw,noexec,mode=755,uid=1000",
            MountOption("tmpfs", "", "/tmp", tmpfs_mode=0o755, tmpfs_options=("noexec", "uid=1000")),
        ),
        ("/tmp:ro", MountOption("tmpfs", "", "/tmp", readonly=True)),
    ],
)
def test_tmpfs(text: str, mount: MountOption) -> None:
    """--tmpfs TARGET[:mount(8) options]."""
    assert parse_tmpfs(text) == mount


@pytest.mark.parametrize("text", ["tmp", "/", "/tmp:size", "/tmp:bind", "/tmp:mode=8", "/tmp:uid="])
def test_bad_tmpfs(text: str) -> None:
    """Nothing that tmpfs does not know gets as far as mount(2)."""
    with pytest.raises(UsageError):
        parse_tmpfs(text)


@given(st.lists(st.text(alphabet='ab,"=/ ', max_size=8), min_size=1, max_size=5))
def test_csv_round_trip(fields: list[str]) -> None:
    """split_csv() undoes CSV quoting (RFC 4180)."""
    line = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert split_csv(line) == fields


@given(st.text(max_size=40))
def test_whatever_is_typed_is_a_mount_or_a_usage_error(text: str) -> None:
    """No other exception, and never a target that is relative or the root."""
    for parse in (parse_volume, parse_mount, parse_tmpfs):
        try:
            found = parse(text)
        except UsageError:
            continue
        assert found.target.startswith("/")
        assert found.target != "/"
        assert ".." not in found.target.split("/")
