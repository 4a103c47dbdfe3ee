# SPDX-License-Identifier: Apache-2.0
"""runtime/oci/json.py: the same values as the standard library, stricter, and cheaper to import."""

from __future__ import annotations

import json as standard
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.runtime.errors import SpecError
from pyrun.runtime.oci import json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "c.json: not JSON: line 1 column 1: expected a value"),
        (b"  \n nul", "c.json: not JSON: line 2 column 2: expected a value"),
        (b"{'a': 1}", "c.json: not JSON: line 1 column 2: expecting property name enclosed in double quotes"),
        (b'{"a": 1 "b": 2}', "c.json: not JSON: line 1 column 9: expecting ',' delimiter"),
        (b"[1] 2", "c.json: not JSON: line 1 column 5: more text after the end"),
        (b"01", "c.json: not JSON: line 1 column 2: more text after the end"),
        (b'{"a": 1, "a": 1}', "c.json: a: this key occurs twice"),
        (b'{"linux": [{}, {"x.y": {"q": 1, "q": 2}}]}', 'c.json: linux[1]["x.y"].q: this key occurs twice'),
        (b'[{"a": [0, NaN]}]', "c.json: [0].a[1]: NaN is not a JSON number"),
        (b"-Infinity", "c.json: -Infinity is not a JSON number"),
        (b'{"n": 1e999}', "c.json: n: 1e999 is too large"),
        (b'{"n": ' + b"9" * 5000 + b"}", "c.json: n: a number of 5000 digits"),
        (b'"\xff"', "c.json: not UTF-8: byte 1 is 0xff"),
        (b'\xef\xbb\xbf{"a": 1}', "c.json: starts with a byte order mark, which JSON forbids"),
        ('{"a": 1}'.encode("utf-16"), "c.json: not UTF-8: byte 0 is 0xff"),
        (b"[" * 200_000, "c.json: arrays or objects are nested too deeply"),
        (b'{"a":' * 200_000, "c.json: arrays or objects are nested too deeply"),
    ],
)
def test_refusals(data: bytes, message: str) -> None:
    """What is not strict JSON is refused, with its line and column or its path."""
    with pytest.raises(SpecError) as caught:
        json.loads(data, "c.json")
    assert str(caught.value) == message


@pytest.mark.parametrize("data", [b'{\n "a": [1,]}', b'{"b": 1,\n}', b'{"b":\n[1 2]}'])
def test_syntax_errors_whose_words_differ_between_pythons(data: bytes) -> None:
    """The standard library's words are passed on, with the line and column in front."""
    with pytest.raises(SpecError, match=r"^c\.json: not JSON: line [12] column \d+: [a-z]"):
        json.loads(data, "c.json")


@pytest.mark.parametrize(
    "data", [b"{]", b"[1,]", b'{"a" 1}', b'"a', b'"\\x"', b"[", b"nul", b"-", b'{"a": 1, "a": 1}', b"[NaN]"]
)
def test_refusals_in_a_fresh_interpreter(data: bytes) -> None:
    """The messages are the same where nobody has imported json before, as in every real command."""
    with pytest.raises(SpecError) as caught:
        json.loads(data, "c.json")
    code = (
        "import sys\n"
        "from pyrun.runtime.errors import SpecError\n"
        "from pyrun.runtime.oci import json\n"
        "assert 'json' not in sys.modules\n"
        "try:\n"
        f"    json.loads({data!r}, 'c.json')\n"
        "except SpecError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == str(caught.value), ran.stderr


def test_first_of_two_refused_things_is_named() -> None:
    """The path is that of the first refused thing in the document."""
    with pytest.raises(SpecError, match=r"c: a: this key"):
        json.loads(b'{"a": 1, "a": 2, "b": NaN}', "c")


@given(VALUES)
def test_reads_what_the_standard_library_writes(value: Any) -> None:
    """Every value survives the way through json.dumps() and our loads()."""
    for ascii_only in (True, False):
        text = standard.dumps(value, ensure_ascii=ascii_only)
        try:
            data = text.encode()
        except UnicodeEncodeError:  # a lone surrogate in a string: only an escape can carry it
            continue
        assert json.loads(data, "c") == value


@given(VALUES, st.sampled_from([0, 1, 4]))
def test_writes_what_the_standard_library_reads(value: Any, indent: int) -> None:
    """dumps() gives JSON, pure ASCII, in the layout of json.dumps() when indented."""
    text = json.dumps(value, indent=indent)
    assert text.isascii()
    assert standard.loads(text) == value
    if indent:
        assert text == standard.dumps(value, indent=indent)


@given(st.binary(max_size=40) | st.text('[]{}",:0123456789.eE+-truefalsnN \\u', max_size=40).map(str.encode))
def test_never_wider_than_the_standard_library(data: bytes) -> None:
    """What is accepted is JSON for the standard library too, with the same value; nothing but SpecError comes out."""
    try:
        ours = json.loads(data, "c")
    except SpecError:
        return
    assert standard.loads(data) == ours


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1}}, object(), b"x"])
def test_dumps_refuses_other_types(value: Any) -> None:
    """Only what JSON knows is written."""
    with pytest.raises(TypeError):
        json.dumps(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")]])
def test_dumps_refuses_other_numbers(value: Any) -> None:
    """NaN and Infinity are never written: no other reader could read them."""
    with pytest.raises(ValueError, match="not a JSON number"):
        json.dumps(value)


def test_reading_does_not_import_re_or_json() -> None:
    """The reason for this module: loads() and dumps() need neither json nor re, which cost 7 ms."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from pyrun.runtime.oci import json\n"
        "json.dumps(json.loads(b'{\"a\": [1, 2.5, true]}', 'x'))\n"
        "print(*sorted({'json', 're', 'enum', 'hashlib', 'typing', 'dataclasses'} & (set(sys.modules) - before)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr
