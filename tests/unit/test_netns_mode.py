# SPDX-License-Identifier: Apache-2.0
"""--network as text, and what contradicts it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from pyrun.netns import mode
from pyrun.netns.mode import NetworkMode
from pyrun.runtime.errors import NotFound, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("", NetworkMode("bridge", "bridge")),
        ("default", NetworkMode("bridge", "bridge")),
        ("bridge", NetworkMode("bridge", "bridge")),
        ("none", NetworkMode("none")),
        ("host", NetworkMode("host")),
        ("container:web", NetworkMode("container", "web")),
        ("ns:/run/netns/lab", NetworkMode("ns", "/run/netns/lab")),
        ("my_net-1.x", NetworkMode("bridge", "my_net-1.x")),
    ],
)
def test_modes(text: str, parsed: NetworkMode) -> None:
    """Each form of --network is understood, and written the same way again."""
    assert mode.parse(text) == parsed
    assert mode.parse(str(parsed)) == parsed
    assert parsed.own == (parsed.kind in ("bridge", "none"))


@pytest.mark.parametrize(
    "text", ["container:", "ns:", "ns:relative", "ns:/a\0b", "-x", "a b", "a/b", "..", "ä", "host:x"]
)
def test_modes_that_are_wrong(text: str) -> None:
    """What is no mode is refused, and cannot become a path."""
    with pytest.raises(UsageError, match="invalid network"):
        mode.parse(text)


@pytest.mark.parametrize(
    ("text", "said", "option"),
    [
        ("container:web", {"hostname": "x"}, "--hostname"),
        ("container:web", {"published": True}, "--publish"),
        ("container:web", {"exposed": True}, "--expose"),
        ("container:web", {"dns": True}, "--dns"),
        ("container:web", {"added_hosts": True}, "--add-host"),
        ("container:web", {"mac_address": "02:42:00:00:00:01"}, "--mac-address"),
        ("host", {"mac_address": "02:42:00:00:00:01"}, "--mac-address"),
        ("none", {"ip": "10.0.0.1"}, "--ip"),
    ],
)
def test_contradictions(text: str, said: dict[str, Any], option: str) -> None:
    """An option that cannot have its effect in a mode is refused, both named."""
    with pytest.raises(UsageError, match=f"conflicting options {option} and --network {text}"):
        mode.check(mode.parse(text), **said)
    assert mode.check(mode.parse("bridge"), **said) == ()


def test_published_ports_without_a_network_of_ones_own() -> None:
    """-p with host or none is only worth a warning, as with docker."""
    assert mode.check(mode.parse("host"), published=True) == ("published ports are discarded with --network host",)
    assert mode.check(mode.parse("none"), published=True) == ("published ports are discarded with --network none",)


def test_only_network_namespaces_are_opened(tmp_path: Path) -> None:
    """ns:PATH takes a network namespace; a file, a FIFO, another namespace or nothing is refused, without hanging."""
    fd = mode.open_netns("/proc/self/ns/net")
    assert os.readlink(f"/proc/self/fd/{fd}").startswith("net:")
    os.close(fd)
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for path in (f"{tmp_path}/file", f"{tmp_path}/fifo", str(tmp_path), "/proc/self/ns/uts", "/dev/null"):
        with pytest.raises(UsageError, match="not a network namespace"):
            mode.open_netns(path)
    with pytest.raises(NotFound, match="no such file"):
        mode.open_netns(f"{tmp_path}/missing")
