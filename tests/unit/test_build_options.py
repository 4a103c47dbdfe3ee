# SPDX-License-Identifier: Apache-2.0
"""The values of build's flags: docker's forms become records, everything else an error that says what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyrun.runtime.cli import build as cli
from pyrun.runtime.cli import flags
from pyrun.runtime.engine.build import options as o
from pyrun.runtime.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("out", o.Output("local", "out")),
        ("-", o.Output("tar", "-")),
        ("type=local,dest=out", o.Output("local", "out")),
        ("type=tar,dest=a.tar", o.Output("tar", "a.tar")),
        ("type=tar", o.Output("tar", "-")),
        ("type=oci,dest=x,tar=false", o.Output("oci", "x", tar=False)),
        ("type=docker", o.Output("docker")),
        ("type=image,name=a,push=true", o.Output("image", names=("a",), push=True)),
        ("type=registry", o.Output("image", push=True)),
        ('type=image,"name=a,b"', o.Output("image", names=("a", "b"))),
        ("type=image,annotation.Some.Key=v", o.Output("image", annotations=(("Some.Key", "v"),))),
    ],
)
def test_output(text: str, output: o.Output) -> None:
    """--output in its long and short forms."""
    assert o.parse_output(text) == output


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("type=local", "needs dest"),
        ("type=locl,dest=x", "unknown type 'locl'"),
        ("dest=x", "unknown type ''"),
        ("type=tar,dst=x", "unknown key 'dst'; did you mean dest?"),
        ("type=oci,tar=false", "with dest=DIRECTORY"),
        ("type=image,push=maybe", "neither true nor false"),
        ("type=local,dest=x,push=true", "for type=image"),
        ("type=image,compression=lzma", "unknown compression"),
        ("type=image,oci-mediatypes=false", "OCI media types"),
    ],
)
def test_bad_output(text: str, why: str) -> None:
    """What is wrong is said."""
    with pytest.raises(ValueError, match=why.replace("?", r"\?")):
        o.parse_output(text)


def test_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """id and src, or env; without either, a variable of that name, else a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", "x")
    assert o.parse_secret("id=a,src=f") == o.Secret("a", f"{tmp_path}/f")
    assert o.parse_secret("src=dir/f") == o.Secret("f", f"{tmp_path}/dir/f")
    assert o.parse_secret("id=a,env=TOKEN") == o.Secret("a", "", "TOKEN")
    assert o.parse_secret("type=env,id=TOKEN") == o.Secret("TOKEN", "", "TOKEN")
    assert o.parse_secret("id=TOKEN") == o.Secret("TOKEN", "", "TOKEN")
    assert o.parse_secret("id=other") == o.Secret("other", f"{tmp_path}/other")
    for text in ("", "id", "id=a,sorce=b", "src=", "id=a,src=b,env=c", "type=x,id=a"):
        with pytest.raises(ValueError, match="."):
            o.parse_secret(text)


def test_cache_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """local, registry and inline; clouds are refused by name."""
    monkeypatch.chdir(tmp_path)
    assert o.parse_cache_from("user/app:cache") == o.CachePlace("registry", "user/app:cache")
    assert o.parse_cache_from("type=local,src=c") == o.CachePlace("local", f"{tmp_path}/c")
    assert o.parse_cache_to("type=inline") == o.CachePlace("inline")
    assert o.parse_cache_to("type=registry,ref=a,mode=max") == o.CachePlace("registry", "a", True)
    for text, why in (
        ("type=gha", "cloud"), ("type=local", "src=DIRECTORY"), ("type=inline", "unknown type"),
        ("type=registry", "ref=NAME"), ("type=local,src=x,mode=most", "unknown key"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            o.parse_cache_from(text)


def test_small_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--build-arg, --build-context, --ssh, --allow, SOURCE_DATE_EPOCH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FROM_HERE", "v")
    monkeypatch.delenv("NOT_HERE", raising=False)
    assert o.parse_build_arg("a=b=c") == ("a", "b=c")
    assert o.parse_build_arg("FROM_HERE") == ("FROM_HERE", "v")
    assert o.parse_build_arg("NOT_HERE") == ("NOT_HERE", None)
    assert o.parse_build_context("Name=dir") == ("name", f"{tmp_path}/dir")
    assert o.parse_build_context("n=docker-image://a") == ("n", "docker-image://a")
    assert o.parse_ssh("default") == o.Agent("default")
    assert o.parse_ssh("k=a,b") == o.Agent("k", (f"{tmp_path}/a", f"{tmp_path}/b"))
    assert o.parse_allow("network.host,security.insecure") == ("network.host", "security.insecure")
    assert o.parse_epoch("12") == 12
    for bad in ("-1", "1.5", " 1", "1_0", "١", ""):
        with pytest.raises(ValueError, match="seconds"):
            o.parse_epoch(bad)
    for call, text in (
        (o.parse_build_arg, "=x"),
        (o.parse_build_context, "x"),
        (o.parse_ssh, "=x"),
        (o.parse_allow, "all"),
    ):
        with pytest.raises(ValueError, match="."):
            call(text)


def parsed(*words: str) -> o.BuildOptions:
    """The options of a command line."""
    return cli.build_options(flags.parse(cli.BUILD, words))


def test_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags end up in their fields; what is not said keeps its default."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    options = parsed(
        "-t", "a", "--tag=b:1", "--build-arg", "x=1", "--build-arg", "x=2", "--target", "t", "-m", "64m", "--no-cache",
        "--ulimit", "nofile=10:20", "--add-host", "h:1.2.3.4", "--network", "host", "--label", "l=m", "--push", ".",
    )  # fmt: skip
    assert (options.context, options.tags, options.build_args) == (".", ("a", "b:1"), (("x", "2"),))
    assert (options.target, options.memory, options.no_cache, options.epoch) == ("t", 64 << 20, True, 7)
    assert options.ulimits[0].hard == 20
    assert options.allow == ("network.host",)
    assert options.outputs == (o.Output("image", push=True),)
    assert parsed("--build-arg", "SOURCE_DATE_EPOCH=9", ".").epoch == 9
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert parsed(".") == o.BuildOptions(".", lint=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--squash", "."), "FROM scratch"),
        (("--isolation", "x", "."), "Windows"),
        (("--provenance", "true", "."), "attestations"),
        (("--platform", "linux/amd64,linux/arm64", "."), "one platform at a time"),
        (("-t", "Bad Name", "."), "invalid reference"),
        (("-t", "a@sha256:" + "0" * 64, "."), "a tag has no digest"),
        (("-f", "-", "-"), "cannot both come from standard input"),
        (("-o", "-", "-o", "type=oci", "."), "only one thing"),
        (("--network", "bridge", "."), "default, none, host"),
        (("--progress", "fancy", "."), "auto, plain"),
        (("--memory", "much", "."), "not a size"),
        (("--tga", "x", "."), "did you mean --tag?"),
        (("", ), "the context's name is empty"),
        ((".", "."), "at most 1"),
        (("--build-arg", "SOURCE_DATE_EPOCH=soon", "."), "SOURCE_DATE_EPOCH"),
    ],
)  # fmt: skip
def test_refusals(words: tuple[str, ...], said: str) -> None:
    """Each is one error with what helps."""
    with pytest.raises(UsageError) as caught:
        parsed(*words)
    assert said in f"{caught.value} {caught.value.hint}"
    assert caught.value.code == 125


def test_false_attestations_and_old_flags_are_taken() -> None:
    """What scripts say out of habit does no harm."""
    assert parsed("--provenance=false", "--sbom", "false", "--rm", "--force-rm", "--compress", ".").context == "."
