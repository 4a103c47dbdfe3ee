# SPDX-License-Identifier: Apache-2.0
"""Subnets as numbers, the choice of a free one, and leases in their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.netns import attach, bridge, leases, networks, published, subnets
from pyrun.netns.networks import Network
from pyrun.netns.ports import PortMapping
from pyrun.netns.published import Published
from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.runtime.files import private_dir
from pyrun.runtime.paths import DEFAULT_DATA_ROOT, DEFAULT_RUN_ROOT, Paths

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = Network("bridge", "0" * 64, "pyrun0", "10.1.1.0/29", "10.1.1.1", "2026-01-01T00:00:00+00:00")


@given(st.integers(0, 2**32 - 1))
def test_numbers_and_texts(number: int) -> None:
    """An address as a number is the same address as a text."""
    assert subnets.to_number(subnets.to_text(number)) == number


def test_subnet() -> None:
    """A /20 has its gateway first and its broadcast address last."""
    subnet = subnets.parse("10.213.16.0/20")
    assert (subnet.gateway, subnet.broadcast, subnet.size) == ("10.213.16.1", "10.213.31.255", 4096)
    assert "10.213.31.255" in subnet
    assert "10.213.32.0" not in subnet
    assert str(subnet) == "10.213.16.0/20"
    assert subnet.overlaps(subnets.parse("10.0.0.0/8"))
    assert subnet.overlaps(subnets.parse("10.213.20.1/32"))
    assert not subnet.overlaps(subnets.parse("10.213.32.0/20"))


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.1/24", "10.0.0/8", "10.0.0.0/٨", "::/8"]
)
def test_subnets_that_are_wrong(text: str) -> None:
    """What is not an IPv4 subnet is refused."""
    with pytest.raises(UsageError):
        subnets.parse(text)


def test_choice_of_a_subnet() -> None:
    """The first free candidate is taken; instances start at different ones; when all overlap it is an error."""
    assert str(subnets.choose([])) == "10.213.0.0/20"
    assert str(subnets.choose([], 3)) == "10.213.48.0/20"
    assert str(subnets.choose([subnets.parse("10.213.0.0/20")])) == "10.213.16.0/20"
    assert str(subnets.choose([subnets.parse("10.0.0.0/8")])) == "172.30.0.0/20"
    with pytest.raises(Conflict, match="every candidate overlaps"):
        subnets.choose([subnets.parse("0.0.0.0/1"), subnets.parse("128.0.0.0/1")])


def test_no_two_candidates_overlap() -> None:
    """Networks made one after another never meet."""
    found = list(subnets.candidates(5))
    assert len(found) == len(set(found)) > 60
    assert not any(one.overlaps(other) for i, one in enumerate(found) for other in found[:i])


def test_leases_go_round(tmp_path: Path) -> None:
    """Addresses are given in order, a freed one last; all five of a /29 can be leased, not one more."""
    paths = Paths(f"{tmp_path}/data", f"{tmp_path}/run")
    ids = [str(i) * 64 for i in range(6)]
    assert [leases.acquire(paths, NETWORK, i) for i in ids[:3]] == ["10.1.1.2", "10.1.1.3", "10.1.1.4"]
    assert leases.release(paths, "bridge", ids[0]) == "10.1.1.2"
    assert leases.release(paths, "bridge", ids[0]) == ""
    assert [leases.acquire(paths, NETWORK, i) for i in ids[3:]] == ["10.1.1.5", "10.1.1.6", "10.1.1.2"]
    with pytest.raises(Conflict, match="all 5 addresses"):
        leases.acquire(paths, NETWORK, "f" * 64)
    assert sorted(leases.prune(paths, "bridge", ids[4:])) == ids[1:4]
    assert leases.held(paths, "bridge") == {"10.1.1.6": ids[4], "10.1.1.2": ids[5]}


def test_a_damaged_lease_file_is_said(tmp_path: Path) -> None:
    """A file that is not JSON is an error with its path, not an empty network."""
    paths = Paths(f"{tmp_path}/data", f"{tmp_path}/run")
    private_dir(leases.directory(paths))
    (tmp_path / "run/leases/bridge.json").write_text("{")
    with pytest.raises(PyrunError, match=r"read .*/run/leases/bridge\.json"):
        leases.acquire(paths, NETWORK, "a" * 64)


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    """Releasing, pruning and reading where nothing was ever leased or published leaves no files."""
    paths = Paths(f"{tmp_path}/data", f"{tmp_path}/run")
    assert leases.release(paths, "bridge", "a" * 64) == ""
    assert leases.prune(paths, "bridge", ()) == []
    assert leases.networks_with_leases(paths) == []
    assert published.everyone(paths) == []
    assert networks.names(paths) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "nope"])
def test_networks_that_are_not_there(tmp_path: Path, name: str) -> None:
    """A name that is no network's is not found, and never leaves the directory."""
    with pytest.raises(NotFound, match="no such network"):
        networks.load(Paths(f"{tmp_path}/data", f"{tmp_path}/run"), name)


def test_names_of_links() -> None:
    """Host ends fit IFNAMSIZ, with and without an instance; MACs follow addresses."""
    usual = Paths(DEFAULT_DATA_ROOT, DEFAULT_RUN_ROOT)
    other = Paths("/x/data", "/x/run")
    container_id = "0123456789abcdef" * 4
    assert attach.host_interface(usual, container_id) == "pv0123456789ab"
    assert attach.host_interface(other, container_id) == f"pv0123456{other.instance}"
    assert len(attach.host_interface(other, container_id)) == 15
    assert bridge.mac_of("10.213.0.2") == "02:42:0a:d5:00:02"


def test_who_holds_a_port(tmp_path: Path) -> None:
    """A wildcard and a single address of the same family are in each other's way, others are not."""
    paths = Paths(f"{tmp_path}/data", f"{tmp_path}/run")
    web, dns = "a" * 64, "b" * 64
    published.write(paths, Published(web, "10.1.1.2", (PortMapping("tcp", "0.0.0.0", 80, 80),)))
    published.write(paths, Published(dns, "10.1.1.3", (PortMapping("udp", "127.0.0.1", 53, 53),)))
    assert published.holder(paths, "tcp", "0.0.0.0", 80) == web
    assert published.holder(paths, "tcp", "127.0.0.1", 80) == web
    assert published.holder(paths, "tcp", "::", 80) == ""
    assert published.holder(paths, "udp", "0.0.0.0", 80) == ""
    assert published.holder(paths, "udp", "0.0.0.0", 53) == dns
    assert published.holder(paths, "udp", "127.0.0.2", 53) == ""
    assert published.holder(paths, "tcp", "0.0.0.0", 80, but=web) == ""
    assert published.elements(published.everyone(paths)) == {
        "ports": {"tcp . 80": "10.1.1.2 . 80"},
        "bound": {"127.0.0.1 . udp . 53": "10.1.1.3 . 53"},
    }
    published.remove(paths, web)
    assert [entry.container_id for entry in published.everyone(paths)] == [dns]
