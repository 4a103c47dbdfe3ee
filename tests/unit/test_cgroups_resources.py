# SPDX-License-Identifier: Apache-2.0
"""linux.resources in, cgroup v2 files out; and what is refused on the way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrun.cgroups.limits import cpu_weight, files, io_weight, needed_controllers
from pyrun.cgroups.resources import NOTHING, DeviceRule, cpu_list, parse
from pyrun.runtime.errors import SpecError

MIB = 1 << 20

# what the configuration says -> what is written, in this order
MAPPINGS: dict[str, tuple[dict[str, object], dict[str, str]]] = {
    "nothing": ({}, {}),
    "nulls": ({"memory": None, "cpu": {"shares": None}, "devices": None, "unified": None}, {}),
    "memory limit": ({"memory": {"limit": 32 * MIB}}, {"memory.max": "33554432"}),
    "swap is the part above memory": (
        {"memory": {"limit": 32 * MIB, "swap": 48 * MIB}},
        {"memory.swap.max": "16777216", "memory.max": "33554432"},
    ),
    "no swap at all": (
        {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}},
        {"memory.swap.max": "0", "memory.max": "33554432"},
    ),
    "unlimited swap": (
        {"memory": {"limit": 32 * MIB, "swap": -1}},
        {"memory.swap.max": "max", "memory.max": "33554432"},
    ),
    "unlimited memory takes swap with it": ({"memory": {"limit": -1}}, {"memory.swap.max": "max", "memory.max": "max"}),
    "reservation": ({"memory": {"reservation": 8 * MIB}}, {"memory.low": "8388608"}),
    "zeros are not asked for": ({"memory": {"limit": 0, "swap": 0, "reservation": 0}, "cpu": {"shares": 0}}, {}),
    "v1's kernel memory": ({"memory": {"kernel": 1000, "kernelTCP": 1000, "useHierarchy": True}}, {}),
    "v1's network": ({"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}}, {}),
    "quota": ({"cpu": {"quota": 50000, "period": 100000}}, {"cpu.max": "50000 100000"}),
    "quota alone": ({"cpu": {"quota": 50000}}, {"cpu.max": "50000 100000"}),
    "period alone": ({"cpu": {"period": 20000}}, {"cpu.max": "max 20000"}),
    "no quota": ({"cpu": {"quota": -1, "period": 50000}}, {"cpu.max": "max 50000"}),
    "burst after quota": (
        {"cpu": {"quota": 50000, "burst": 10000}},
        {"cpu.max": "50000 100000", "cpu.max.burst": "10000"},
    ),
    "shares": ({"cpu": {"shares": 512}}, {"cpu.weight": "59"}),
    "idle excludes a weight": ({"cpu": {"idle": 1, "shares": 512}}, {"cpu.idle": "1"}),
    "cpuset": ({"cpu": {"cpus": "0-1", "mems": "0"}}, {"cpuset.cpus": "0-1", "cpuset.mems": "0"}),
    "pids": ({"pids": {"limit": 10}}, {"pids.max": "10"}),
    "pids without limit": ({"pids": {"limit": -1}}, {"pids.max": "max"}),
    "no more pids than the first": ({"pids": {"limit": 0}}, {"pids.max": "1"}),
    "block weight, both schedulers": (
        {"blockIO": {"weight": 500, "leafWeight": 300}},
        {"io.bfq.weight": "default 500", "io.weight": "default 4950"},
    ),
    "weight of a device": (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 5}]}},
        {"io.bfq.weight": "8:0 10", "io.weight": "8:0 1"},
    ),
    "throttles of one device share a line": (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}, {"major": 8, "minor": 16, "rate": 5}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2000}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 30}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
            }
        },
        {"io.max": "8:0 rbps=1000 wbps=2000 riops=30 wiops=max\n8:16 rbps=5"},
    ),
    "huge pages": (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
        {"hugetlb.2MB.rsvd.max": "4194304", "hugetlb.2MB.max": "4194304"},
    ),
    "rdma": (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1000}}},
        {"rdma.max": "mlx5_1 hca_handle=3 hca_object=10000\nmlx4_0 hca_object=1000"},
    ),
    "unified comes last and wins": (
        {"pids": {"limit": 10}, "unified": {"pids.max": "11", "memory.high": "1000"}},
        {"pids.max": "11", "memory.high": "1000"},
    ),
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_files(name: str) -> None:
    """Each setting becomes the files that the kernel documents for it, in writing order."""
    raw, expected = MAPPINGS[name]
    assert list(files(parse(raw)).items()) == list(expected.items())


def test_an_update_keeps_the_other_half_of_a_pair() -> None:
    """Quota without period, and swap without memory, are completed from what the cgroup has now."""
    now = {"cpu.max": "20000 50000", "memory.max": "33554432"}
    assert files(parse({"cpu": {"quota": 30000}}), now) == {"cpu.max": "30000 50000"}
    assert files(parse({"cpu": {"period": 80000}}), now) == {"cpu.max": "20000 80000"}
    assert files(parse({"memory": {"swap": 48 * MIB}}), now) == {"memory.swap.max": "16777216"}


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (1, 1), (2, 1), (3, 2), (102, 17), (512, 59), (1024, 100), (2048, 174), (262143, 10000), (262144, 10000)],
)
def test_cpu_weight(shares: int, weight: int) -> None:
    """Minimum, default and maximum of shares are those of weight; never out of 1..10000."""
    assert cpu_weight(shares) == weight


def test_cpu_weight_is_monotonic() -> None:
    """More shares never give less weight."""
    weights = [cpu_weight(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)
    assert weights[0] >= 1
    assert weights[-1] <= 10000


def test_io_weight_covers_the_range() -> None:
    """10..1000 of cgroup v1 is 1..10000."""
    assert (io_weight(10), io_weight(1000)) == (1, 10000)


REFUSALS = {
    "memory.limit: must be a whole number, not '32m'": {"memory": {"limit": "32m"}},
    "memory.limit: must be a whole number, not True": {"memory": {"limit": True}},
    "memory.limit: must be a whole number, not 1.0": {"memory": {"limit": 1.0}},
    "memory.limit: must be from -1 to 9223372036854775807, not -2": {"memory": {"limit": -2}},
    "memory: must be an object, not [1]": {"memory": [1]},
    "memory.swappiness: cgroup v2 has no swappiness of a cgroup": {"memory": {"swappiness": 60}},
    "memory.disableOOMKiller: cgroup v2 cannot turn the OOM killer off": {"memory": {"disableOOMKiller": True}},
    "memory.swap: 16 must not be smaller than the limit 32: it covers both": {"memory": {"limit": 32, "swap": 16}},
    "cpu.realtimeRuntime: cgroup v2 has no realtime limits": {"cpu": {"realtimeRuntime": 1000}},
    "cpu.idle: must be from 0 to 1, not 2": {"cpu": {"idle": 2}},
    "cpu.burst: 20 must not be larger than the quota 10": {"cpu": {"quota": 10, "burst": 20}},
    "cpu.cpus: '0-' is not a list such as 0-3,7": {"cpu": {"cpus": "0-"}},
    "cpu.mems: '1\\n' is not a list such as 0-3,7": {"cpu": {"mems": "1\n"}},
    "pids.limit: must be a whole number, not '10'": {"pids": {"limit": "10"}},
    "blockIO.weight: must be from 10 to 1000, or 0 for the default, not 5": {"blockIO": {"weight": 5}},
    "blockIO.throttleReadBpsDevice[1].rate: is required": {
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 0}]}
    },
    "hugepageLimits[0].pageSize: must be a size such as 2MB or 1GB, not '../2MB'": {
        "hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]
    },
    "rdma.mlx: needs hcaHandles or hcaObjects": {"rdma": {"mlx": {}}},
    "devices[1].allow: is required": {"devices": [{"allow": False}, {"type": "c"}]},
    "devices[0].type: must be a (all), b (block) or c (char), not 'p'": {"devices": [{"allow": True, "type": "p"}]},
    "devices[0].access: must be made of r, w and m, not 'rx'": {"devices": [{"allow": True, "access": "rx"}]},
    "devices[0].major: must be from -1 to 4095, not 4096": {"devices": [{"allow": True, "major": 4096}]},
    "devices: must be an array, not {}": {"devices": {}},
    "unified.../pids.max: must name a file of a cgroup, such as memory.high": {"unified": {"../pids.max": "1"}},
    "unified.pids: must name a file of a cgroup, such as memory.high": {"unified": {"pids": "1"}},
    "unified.cgroup.procs: is an action, not a limit": {"unified": {"cgroup.procs": "1"}},
    "unified.pids.max: must be a string, not 5": {"unified": {"pids.max": 5}},
}


@pytest.mark.parametrize("message", REFUSALS)
def test_a_wrong_value_is_refused_with_its_json_path(message: str) -> None:
    """One line that starts with the path of the value in the configuration."""
    with pytest.raises(SpecError) as caught:
        parse(REFUSALS[message], "config.json: linux.resources")
    assert str(caught.value) == f"config.json: linux.resources.{message}"


def test_swap_below_memory_is_refused() -> None:
    """memory.swap covers both, so it can be neither smaller than the limit in force, nor alone."""
    for now in ({"memory.max": "33554432"}, {}):
        with pytest.raises(SpecError, match=r"memory\.swap: "):
            files(parse({"memory": {"swap": 16 * MIB}}), now)
    assert files(parse({"memory": {"swap": 16 * MIB}}), {"memory.max": "max"}) == {"memory.swap.max": "16777216"}


@pytest.mark.parametrize(
    "listed", ["", "a", "1-0", "0,,1", "0-1-2", "+1", "1_0", "٣", "0-99999", "1 ", "99999999999999"]
)
def test_cpu_lists_that_are_none(listed: str) -> None:
    """Only ASCII digits, commas and dashes, in order and of a sane size."""
    with pytest.raises(SpecError):
        cpu_list(listed, "cpus")


def test_cpu_list() -> None:
    """A list names each number once."""
    assert cpu_list("0-2,2,7", "cpus") == {0, 1, 2, 7}


def test_device_rules() -> None:
    """-1 and an absent number are any number; an absent type is all; an absent access is everything."""
    raw = {"devices": [{"allow": False}, {"allow": True, "type": "c", "major": 42, "minor": -1, "access": "rm"}]}
    assert parse(raw).devices == (DeviceRule(False), DeviceRule(True, "c", 42, None, "rm"))
    assert [str(rule) for rule in parse(raw).devices] == ["deny a *:* rwm", "allow c 42:* rm"]


def test_a_device_rule_survives_the_way_through_json() -> None:
    """oci() and parse() are each other's inverse."""
    rules = (DeviceRule(False), DeviceRule(True, "b", 8, None, "r"), DeviceRule(True, "c", 1, 3, "rwm"))
    assert parse({"devices": [rule.oci() for rule in rules]}).devices == rules


def test_needed_controllers() -> None:
    """Each controller with the first thing that needs it."""
    raw = {
        "memory": {"limit": 32 * MIB},
        "cpu": {"quota": 50000, "cpus": "0"},
        "pids": {"limit": 10},
        "unified": {"hugetlb.2MB.max": "max", "cgroup.max.depth": "3"},
    }
    assert needed_controllers(parse(raw)) == {
        "memory": "memory.max = 33554432",
        "cpu": "cpu.max = 50000 100000",
        "cpuset": "cpuset.cpus = 0",
        "pids": "pids.max = 10",
        "hugetlb": "hugetlb.2MB.max = max",
    }


def test_no_limit_needs_no_controller() -> None:
    """What callers send for "unlimited" holds without the controller, so it must not be refused."""
    raw = {"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1, "idle": 0, "burst": 0}, "pids": {"limit": -1}}
    assert needed_controllers(parse(raw)) == {}
    assert needed_controllers(NOTHING) == {}


def test_absent_resources() -> None:
    """null is the same as an empty object."""
    assert parse(None) == parse({}) == NOTHING


SECTIONS = ("memory", "cpu", "pids", "blockIO", "hugepageLimits", "rdma", "devices", "unified", "network")
NAMES = (
    "limit", "swap", "reservation", "shares", "quota", "burst", "period", "cpus", "mems", "idle", "weight", "pageSize",
    "weightDevice", "throttleReadBpsDevice", "major", "minor", "rate", "allow", "type", "access", "pids.max", "mlx5_1",
    "hcaHandles",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(0, 2000), st.floats(), st.text(max_size=5),
    st.sampled_from(["0-3", "2MB", "c", "rwm"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(SECTIONS), VALUES, max_size=4))
def test_any_json_is_either_understood_or_refused(raw: dict[str, object]) -> None:
    """No value makes anything but a SpecError, and what is understood names plain files."""
    try:
        wanted = files(parse(raw))
    except SpecError:
        return
    for name, value in wanted.items():
        assert "/" not in name
        assert isinstance(value, str)
