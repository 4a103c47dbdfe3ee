# SPDX-License-Identifier: Apache-2.0
"""Platforms in a Dockerfile."""

from __future__ import annotations

import pytest

from pyrun.rootfs.build import platforms
from pyrun.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/x86_64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("arm/v6", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("LINUX/ARM64", "linux/arm64"),
        ("linux/riscv64", "linux/riscv64"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_one_writing_for_one_platform(text: str, expected: str) -> None:
    """Variants that an architecture has anyhow are left out, as docker shows platforms."""
    assert str(platforms.parse(text)) == expected


@pytest.mark.parametrize("text", ["linux/", "/amd64", "linux//v7", "linux/arm/v7/x", "linux/ä", "linux amd64"])
def test_what_is_no_platform(text: str) -> None:
    """An error with an example."""
    with pytest.raises(UsageError):
        platforms.parse(text)


def test_comparing() -> None:
    """However they are written."""
    assert platforms.same(platforms.parse("linux/arm"), platforms.parse("linux/arm/v7"))
    assert not platforms.same(platforms.parse("linux/arm/v6"), platforms.parse("linux/arm/v7"))


def test_arguments() -> None:
    """BUILD* is where it is built, TARGET* what for; TARGETSTAGE is the stage."""
    found = platforms.arguments(platforms.parse("linux/amd64"), platforms.parse("linux/arm/v6"), "app")
    assert found == {
        "BUILDPLATFORM": "linux/amd64", "BUILDOS": "linux", "BUILDOSVERSION": "", "BUILDARCH": "amd64",
        "BUILDVARIANT": "", "TARGETPLATFORM": "linux/arm/v6", "TARGETOS": "linux", "TARGETOSVERSION": "",
        "TARGETARCH": "arm", "TARGETVARIANT": "v6", "TARGETSTAGE": "app",
    }  # fmt: skip
    assert set(found) == set(platforms.PREDEFINED)
    assert platforms.arguments(platforms.host(), platforms.host())["TARGETSTAGE"] == "default"
