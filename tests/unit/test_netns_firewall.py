# SPDX-License-Identifier: Apache-2.0
"""The firewall's texts, and what is said when nftables is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pyrun.netns import firewall, foreign
from pyrun.netns.nfnetlink import BaseChain
from pyrun.runtime.errors import PyrunError, Unsupported
from pyrun.runtime.kernel.nftables import NftError
from pyrun.runtime.paths import DEFAULT_DATA_ROOT, DEFAULT_RUN_ROOT, Paths


def test_every_instance_has_its_table() -> None:
    """The default roots use the table `pyrun`, others one with their suffix."""
    other = Paths("/x/data", "/x/run")
    assert firewall.table_name(Paths(DEFAULT_DATA_ROOT, DEFAULT_RUN_ROOT)) == "pyrun"
    assert firewall.table_name(other) == f"pyrun_{other.instance}"


@pytest.mark.parametrize(
    ("message", "errno", "text"),
    [
        ("Error: Could not process rule: File exists\ncreate element …\n  ^^^", 17, "nft: File exists"),
        (
            "Error: No such file or directory; did you mean table ‘pt’ in family ip?\n…",
            2,
            "nft: No such file or directory",
        ),
        ("Error: Could not process rule: Operation not permitted\n", 1, "nft: Operation not permitted"),
        ("Error: syntax error, unexpected newline, expecting string\n", 22, "nft: syntax error, unexpected newline"),
    ],
)
def test_what_nft_says_becomes_an_errno(message: str, errno: int, text: str) -> None:
    """nft's texts are turned back into the kernel's answer; the first line is the reason."""
    error = NftError(message, "…")
    assert error.errno == errno
    assert str(error).startswith(text)


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (ImportError("libnftables.so.1: cannot open shared object file"), Unsupported, "apt install libnftables1"),
        (OSError(93, "Protocol not supported"), Unsupported, "nf_tables"),
        (OSError(1, "Operation not permitted"), PyrunError, "CAP_NET_ADMIN"),
    ],
)
def test_a_missing_part_is_named(error: Exception, kind: type[PyrunError], hint: str) -> None:
    """Without the library, the kernel's part or the privilege the error says what to do."""

    def refuse() -> None:
        raise error

    with pytest.raises(kind) as raised:
        firewall.run(refuse, what="write the firewall's rules")
    assert type(raised.value) is kind
    assert raised.value.what == "write the firewall's rules"
    assert hint in raised.value.hint


def test_without_libnftables_the_package_is_named() -> None:
    """In a process where the extension module cannot be loaded, the first use says which package to install."""
    code = """
import sys
sys.modules["pyrun.runtime.kernel._nftables"] = None
from pyrun.netns import firewall
from pyrun.runtime.kernel import nftables
try:
    firewall.run(nftables.run, "list tables", what="write the firewall's rules")
except firewall.Unsupported as error:
    print(error.what, error.hint, sep="|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "write the firewall's rules|install libnftables: apt install libnftables1\n", done.stderr


def test_only_the_instances_own_rules_are_taken_for_its_own() -> None:
    """The rules of pyrun0 are not those of pyrun0-0a1b2c, nor the other way round."""
    chain = BaseChain("ip", "filter", "FORWARD", 1, "drop")
    assert str(chain) == "ip filter FORWARD"
    assert foreign.is_own("pyrun0", "")
    assert foreign.is_own("pyrun12", "")
    assert foreign.is_own("pyrun0-0a1b2c", "0a1b2c")
    assert not foreign.is_own("pyrun0-0a1b2c", "")
    assert not foreign.is_own("pyrun0", "0a1b2c")
    assert not foreign.is_own("pyrun0-999999", "0a1b2c")
