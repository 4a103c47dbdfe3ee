# SPDX-License-Identifier: Apache-2.0
"""The command line of pyrun-oci: Go's flags, and the formats of its lines."""

from __future__ import annotations

import pytest

from pyrun.runtime.cli import oci, oci_log
from pyrun.runtime.cli.oci_events import milliseconds
from pyrun.runtime.cli.oci_exec import kernel_id, variable
from pyrun.runtime.cli.oci_list import table
from pyrun.runtime.cli.oci_update import from_flags
from pyrun.runtime.errors import Conflict, UsageError
from pyrun.runtime.oci.look import chosen

FLAGS: oci.Flags = {"bundle": oci.VALUE, "b": "bundle", "env": oci.MANY, "e": "env", "all": oci.SWITCH}


@pytest.mark.parametrize(
    "words",
    [("--bundle", "/x"), ("-bundle", "/x"), ("--bundle=/x",), ("-bundle=/x",), ("-b", "/x"), ("-b=/x",)],
)
def test_a_value_in_all_of_go_s_forms(words: tuple[str, ...]) -> None:
    """One dash or two, joined or not, and the short name."""
    values: oci.Values = {}
    assert oci.parse((*words, "c1"), FLAGS, values) == ["c1"]
    assert values == {"bundle": "/x"}


def test_many_and_switches() -> None:
    """A flag that may be repeated keeps every value; a switch may be turned off; "--" ends the flags."""
    values: oci.Values = {}
    words = ("-e", "A=1", "--all=false", "--env=B=2 3", "--", "--all")
    assert oci.parse(words, FLAGS, values) == ["--all"]
    assert values == {"env": f"A=1{oci.SEPARATOR}B=2 3", "all": ""}


def test_flags_after_the_id() -> None:
    """They are the command's where its words are not a user's program."""
    assert oci.parse(("c1", "--all"), FLAGS, {}, interspersed=True) == ["c1"]
    assert oci.parse(("c1", "--all"), FLAGS, {}) == ["c1", "--all"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--what",), "unknown flag: --what"),
        (("--bundle",), "flag needs an argument: --bundle"),
        (("---all",), "unknown flag: ---all"),
        (("--all=maybe",), "--all=maybe: it is true or false"),
    ],
)
def test_wrong_flags(words: tuple[str, ...], text: str) -> None:
    """One sentence for each; podman looks for "flag needs an argument"."""
    with pytest.raises(UsageError) as caught:
        oci.parse(words, FLAGS, {})
    assert str(caught.value) == text


def test_every_module_is_there() -> None:
    """The modules named in the table have flags whose short names stand for long ones, and a run()."""
    for name in oci.MODULES:
        module = __import__(f"pyrun.runtime.cli.oci_{name}", fromlist=["run"])
        assert callable(module.run)
        assert all(kind in (0, 1, 2) or module.FLAGS[kind] in (0, 1, 2) for kind in module.FLAGS.values())
    assert set(oci.FIRST) <= set(oci.MODULES)


def test_lines_of_the_log() -> None:
    """As logrus writes them: RFC 3339 with a zone, quotes escaped, one line whatever the text is."""
    assert oci_log.line("json", "error", 'a "b"\n', 0.0) == (
        '{"level":"error","msg":"a \\"b\\"\\n","time":"1970-01-01T00:00:00Z"}\n'
    )
    assert (
        oci_log.line("text", "error", 'a "b"\n', 0.0) == 'time="1970-01-01T00:00:00Z" level=error msg="a \\"b\\"\\n"\n'
    )


def test_table_of_list() -> None:
    """Columns are as wide as their longest cell and three spaces, and at least 12."""
    assert (
        table([("ID", "PID"), ("a-longer-identifier", "1")]) == "ID                    PID\na-longer-identifier   1\n"
    )


def test_lines_of_ps() -> None:
    """Only whole pids in the column PID count."""
    text = "UID   PID  PPID CMD\nroot   10     1 a 11\nroot   11    10 b\nroot  110    10 c\n"
    assert chosen(text, [11]) == "UID   PID  PPID CMD\nroot   11    10 b\n"
    with pytest.raises(Conflict):
        chosen("CMD\na\n", [1])


@pytest.mark.parametrize(("text", "found"), [("5s", 5000), ("250ms", 250), ("1m30s", 90_000), ("1h", 3_600_000)])
def test_durations(text: str, found: int) -> None:
    """As Go writes them."""
    assert milliseconds(text) == found


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "0s", "1_0s", "5 s", "1.5s", "\u0661s", "5sm", "9999999999s"])
def test_no_durations(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError):
        milliseconds(text)


@pytest.mark.parametrize("text", ["", "root", "-1", "+1", "1_0", " 1", "\u0661", "4294967295", "99999999999"])
def test_no_ids(text: str) -> None:
    """exec -u takes numbers that can be ids."""
    with pytest.raises(UsageError):
        kernel_id("--user", text)


def test_ids_and_variables() -> None:
    """The largest id, and a value with an equals sign."""
    assert kernel_id("--user", "4294967294") == 4294967294
    assert variable("A=b=c") == "A=b=c"
    for wrong in ("A", "=b", ""):
        with pytest.raises(UsageError):
            variable(wrong)


def test_flags_of_update() -> None:
    """They become the part of linux.resources that they name, and no more."""
    values = {"memory": "64", "memory-swap": "-1", "cpuset-cpus": "0-1", "pids-limit": "5"}
    assert from_flags(values) == {
        "memory": {"limit": 64, "swap": -1}, "pids": {"limit": 5}, "cpu": {"cpus": "0-1"},
    }  # fmt: skip
    for wrong in ({}, {"memory": "1k"}, {"memory": "--1"}, {"l3-cache-schema": "L3:0=f"}):
        with pytest.raises(UsageError):
            from_flags(wrong)
