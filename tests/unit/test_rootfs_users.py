# SPDX-License-Identifier: Apache-2.0
"""Who -u and --group-add mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.rootfs import users
from pyrun.rootfs.users import User
from pyrun.runtime.errors import NotFound, PyrunError, UsageError

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
app:x:1000:1000:App:/home/app:/bin/sh
big:x:4294967294:4294967294::/big:
bad:x:zero:0::/bad:
neg:x:-1:0::/neg:
over:x:4294967296:0::/over:
+nis::0:0:::
short:x:5
1234:x:77:77::/digits:
"""
GROUP = b"""root:x:0:root
adm:x:4:app,daemon
app:x:1000:
video:x:44: app
broken:x:x:app
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0, (0,), "/root", "root")),
        ("0", User(0, 0, (0,), "/root", "root")),
        ("root", User(0, 0, (0,), "/root", "root")),
        ("app", User(1000, 1000, (4, 44), "/home/app", "app")),
        ("1000", User(1000, 1000, (4, 44), "/home/app", "app")),
        ("app:adm", User(1000, 4, (), "/home/app", "app")),
        ("1000:1000", User(1000, 1000, (), "/home/app", "app")),
        ("1000:video", User(1000, 44, (), "/home/app", "app")),
        ("5000", User(5000, 0, (), "/", "")),
        ("5000:6000", User(5000, 6000, (), "/", "")),
        ("4294967294", User(4294967294, 4294967294, (), "/big", "big")),
        ("00", User(0, 0, (0,), "/root", "root")),
        ("1234", User(1234, 0, (), "/", "")),
        (":5", User(0, 5, (), "/root", "root")),
        (":video", User(0, 44, (), "/root", "root")),
    ],
)
def test_docker_user_values(user: str, expected: User) -> None:
    """Names and numbers, with and without a group, as docker resolves them; a number is never a name."""
    assert users.resolve(user, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    "user",
    [
        "4294967295", "4294967296", "99999999999999999999", "-1", "+1", "1:4294967295", " 1", "1:", "1:2:3", "١",
        ":", "::1", ":+1", ":4294967295", "1:١", "app:+4", "²", "a\nb",
    ],
)  # fmt: skip
def test_numbers_out_of_range_and_malformed_values_are_refused(user: str) -> None:
    """CVE-2024-40635, CVE-2026-46680, CVE-2026-30892: never uid 0 by accident, never a look-up as a name."""
    with pytest.raises(UsageError):
        users.resolve(user, PASSWD + b"4294967295:x:0:0::/:\n-1:x:0:0::/:\n", GROUP)


@pytest.mark.parametrize("user", ["nobody", "app:nogroup", "1_0", "bad", "neg", "over", "short", "broken:broken", "1x"])
def test_unknown_names_are_not_found(user: str) -> None:
    """Lines with a bad number are no lines: others read them as uid 0."""
    with pytest.raises(NotFound):
        users.resolve(user, PASSWD, GROUP)


def test_group_add_takes_names_and_numbers_once_each() -> None:
    """--group-add adds to the groups of /etc/group, without repeating any."""
    assert users.resolve("app", PASSWD, GROUP, ("video", "7", "44", "adm")).additional_gids == (4, 44, 7)
    with pytest.raises(NotFound):
        users.resolve("app", PASSWD, GROUP, ("nogroup",))
    with pytest.raises(UsageError):
        users.resolve("app", PASSWD, GROUP, ("4294967295",))


def test_an_image_without_files_knows_only_numbers() -> None:
    """FROM scratch: root and numbers work, names do not."""
    assert users.resolve("", b"", b"") == User(0, 0)
    assert users.resolve("10:20", b"", b"") == User(10, 20)
    with pytest.raises(NotFound, match="no user 'app'"):
        users.resolve("app", b"", b"")


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_any_input_is_a_user_or_an_error_for_people(user: str, passwd: bytes, group: bytes) -> None:
    """Hostile files and values give ids in range or a PyrunError."""
    try:
        found = users.resolve(user, passwd, group)
    except PyrunError:
        return
    assert 0 <= found.uid <= 2**32 - 2
    assert 0 <= found.gid <= 2**32 - 2
    if user and not passwd:
        assert user.partition(":")[0].isascii()
