# SPDX-License-Identifier: Apache-2.0
"""runtime/oci/capabilities.py: names, masks, what can be granted, and docker's --cap-add and --cap-drop."""

from __future__ import annotations

import pytest

from pyrun.runtime.engine.defaults import CAPABILITIES
from pyrun.runtime.errors import UsageError
from pyrun.runtime.oci import capabilities as c
from pyrun.runtime.oci.capabilities import CapabilitySets

EVERYTHING = (1 << 41) - 1


def test_all_forty_one() -> None:
    """Numbers are consecutive, and the well-known ones are where capabilities(7) has them."""
    assert len(c.NAMES) == len(set(c.NAMES)) == 41
    assert [c.NUMBERS[name] for name in c.NAMES] == list(range(41))
    known = {"CAP_CHOWN": 0, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SETFCAP": 31, "CAP_CHECKPOINT_RESTORE": 40}
    assert {name: c.NUMBERS[name] for name in known} == known


def test_last_cap_of_this_kernel() -> None:
    """The running kernel's last capability is one that it shows in its own masks."""
    last = c.last_cap()
    assert 37 <= last < 64
    held = c.held()
    assert held.bounding >> (last + 1) == 0
    assert held.permitted & ~EVERYTHING == 0 or last > 40


def test_masks_and_names() -> None:
    """Names become bits and back; what is no capability here is reported."""
    assert c.mask(("CAP_CHOWN", "CAP_KILL", "CAP_CHOWN")) == (0b100001, ())
    assert c.mask(("CAP_CHOWN", "CAP_NONE", "chown")) == (1, ("CAP_NONE", "chown"))
    assert c.mask(("CAP_BPF", "CAP_CHOWN"), last=38) == (1, ("CAP_BPF",))
    assert c.names(0b100001) == ("CAP_CHOWN", "CAP_KILL")
    assert c.names(1 << 41 | 1) == ("CAP_CHOWN", "CAP_41")
    assert c.mask(c.NAMES) == (EVERYTHING, ())


def test_granted_in_a_new_user_namespace() -> None:
    """In a user namespace of its own the container gets all that it asks for."""
    sets, said = c.grantable(c.NAMES, c.NAMES, (), c.NAMES, (), last=40, own=None)
    assert sets == CapabilitySets(EVERYTHING, EVERYTHING, 0, EVERYTHING, 0)
    assert said == ()


def test_what_cannot_be_granted_is_dropped_and_told() -> None:
    """A host without CAP_SYS_RESOURCE starts containers without it, and says so: the spec asks for a warning."""
    lacking = EVERYTHING & ~(1 << c.NUMBERS["CAP_SYS_RESOURCE"])
    own = CapabilitySets(lacking, lacking, 0, lacking, 0)
    wanted = ("CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_FUTURE")
    sets, said = c.grantable(wanted, wanted, (), wanted, (), last=40, own=own)
    assert sets == CapabilitySets(1, 1, 0, 1, 0)
    assert "permitted capability CAP_SYS_RESOURCE: pyrun does not hold it" in said
    assert "bounding capability CAP_FUTURE: this kernel has no such capability" in said
    assert len(said) == len(set(said))


def test_the_kernels_rules_between_the_sets() -> None:
    """Effective stays within permitted; ambient within permitted and inheritable (capabilities(7))."""
    sets, said = c.grantable(
        ("CAP_CHOWN",),
        ("CAP_CHOWN", "CAP_KILL"),
        ("CAP_CHOWN",),
        ("CAP_CHOWN",),
        ("CAP_CHOWN", "CAP_KILL"),
        last=40,
        own=None,
    )
    assert sets == CapabilitySets(1, 1, 1, 1, 1)
    assert said == (
        "effective capability CAP_KILL: not permitted",
        "ambient capability CAP_KILL: not both permitted and inheritable",
    )


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("NET_ADMIN", "CAP_NET_ADMIN"),
        ("net_admin", "CAP_NET_ADMIN"),
        ("cap_net_admin", "CAP_NET_ADMIN"),
        ("CAP_Net_Admin", "CAP_NET_ADMIN"),
        ("all", "ALL"),
        ("ALL", "ALL"),
    ],
)
def test_normalize(written: str, name: str) -> None:
    """Names are taken with and without CAP_, in any case."""
    assert c.normalize(written) == name


@pytest.mark.parametrize(
    ("written", "hint"), [("NET_ADMON", "did you mean 'NET_ADMIN'?"), ("", "lists them"), ("CAP_ALL", "")]
)
def test_unknown_names(written: str, hint: str) -> None:
    """Anything else is a usage error, with the nearest name where one is near."""
    with pytest.raises(UsageError) as caught:
        c.normalize(written)
    assert str(caught.value) == f"unknown capability {written!r}"
    assert hint in caught.value.hint


def sorted_names(*names: str) -> tuple[str, ...]:
    return tuple(sorted(names, key=c.NUMBERS.__getitem__))


@pytest.mark.parametrize(
    ("add", "drop", "privileged", "expected"),
    [
        ((), (), False, CAPABILITIES),
        (("NET_ADMIN",), (), False, (*CAPABILITIES, "CAP_NET_ADMIN")),
        ((), ("MKNOD",), False, tuple(name for name in CAPABILITIES if name != "CAP_MKNOD")),
        (("CHOWN",), ("CHOWN",), False, CAPABILITIES),
        ((), ("ALL",), False, ()),
        (("KILL", "chown"), ("ALL",), False, ("CAP_CHOWN", "CAP_KILL")),
        (("ALL",), (), False, c.NAMES),
        (("ALL",), ("SYS_ADMIN",), False, tuple(name for name in c.NAMES if name != "CAP_SYS_ADMIN")),
        (("ALL",), ("ALL",), False, c.NAMES),
        ((), ("ALL",), True, c.NAMES),
    ],
)
def test_docker_arithmetic(
    add: tuple[str, ...], drop: tuple[str, ...], privileged: bool, expected: tuple[str, ...]
) -> None:
    """--cap-add, --cap-drop and --privileged combine as docker combines them."""
    assert c.resolve(add, drop, privileged, CAPABILITIES) == sorted_names(*expected)


def test_what_is_not_available() -> None:
    """On a restricted host, ALL and --privileged give what there is; asking for a missing one by name is an error."""
    available = tuple(name for name in c.NAMES if name != "CAP_SYS_RESOURCE")
    assert c.resolve(("ALL",), (), False, CAPABILITIES, available) == available
    assert c.resolve((), (), True, CAPABILITIES, available) == available
    with pytest.raises(UsageError, match="cannot add capability CAP_SYS_RESOURCE"):
        c.resolve(("SYS_RESOURCE",), (), False, CAPABILITIES, available)
    with pytest.raises(UsageError, match="unknown capability 'SYS_RESORCE'"):
        c.resolve((), ("SYS_RESORCE",), True, CAPABILITIES, available)


def test_dockers_default_set() -> None:
    """The fourteen capabilities of a docker container, and nothing that reaches the host."""
    assert len(CAPABILITIES) == len(set(CAPABILITIES)) == 14
    assert set(CAPABILITIES) <= set(c.NAMES)
    assert not {"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE"} & set(CAPABILITIES)
    assert sorted_names(*CAPABILITIES) == CAPABILITIES
