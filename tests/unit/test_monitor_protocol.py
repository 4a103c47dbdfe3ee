# SPDX-License-Identifier: Apache-2.0
"""Frames: what one side packs the other unpacks, however the bytes are cut; and nonsense is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.runtime.errors import Conflict, NotFound, PyrunError
from pyrun.runtime.monitor import protocol
from pyrun.runtime.monitor.answers import describe_error, error_of
from pyrun.runtime.monitor.terminal import DetachKeys

WORDS = st.lists(st.binary(max_size=20).filter(lambda word: b"\0" not in word), max_size=5)


@given(frames=st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300))), cuts=st.lists(st.integers(0, 3000)))
def test_frames_survive_any_cutting(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """The stream may be cut anywhere; the same frames come out in order."""
    stream = b"".join(protocol.frame(kind, payload) for kind, payload in frames)
    parser = protocol.Parser()
    found = []
    at = 0
    for cut in [*sorted(cuts), len(stream)]:
        found += parser.feed(stream[at:cut])
        at = max(at, cut)
    assert found == frames
    assert parser.empty


@pytest.mark.parametrize(("kind", "limit"), [(protocol.STDIN, protocol.SMALL), (protocol.REQUEST, protocol.LARGE)])
def test_a_frame_that_is_too_long_is_refused_at_its_header(kind: int, limit: int) -> None:
    """Nobody makes the reader keep gigabytes: the length alone is enough to refuse."""
    protocol.Parser().feed(protocol.HEADER.pack(limit, kind))
    with pytest.raises(protocol.ProtocolError):
        protocol.Parser().feed(protocol.HEADER.pack(limit + 1, kind))


@given(argv=WORDS, environ=WORDS, umask=st.integers(0, 0o777))
def test_a_command_survives(argv: list[bytes], environ: list[bytes], umask: int) -> None:
    """Any bytes but NUL in arguments and environment, empty ones too."""
    assert protocol.unpack_command(protocol.pack_command(argv, environ, umask)) == (argv, environ, umask)


@given(version=st.text().filter(lambda text: "\0" not in text), body=st.binary())
def test_a_request_survives(version: str, body: bytes) -> None:
    """Kind, version, data root (any path), body."""
    root = os.fsdecode(b"/caf\xe9")
    version = version.encode("utf-8", "replace").decode()
    packed = protocol.pack_request(protocol.CALL, version, root, body)
    assert protocol.unpack_request(packed) == (protocol.CALL, version, root, body)


@given(payload=st.binary(max_size=60))
def test_unpacking_nonsense_is_a_protocol_error(payload: bytes) -> None:
    """Never another exception."""
    for unpack in (protocol.unpack_request, protocol.unpack_command, protocol.unpack_json, protocol.unpack_attached):
        try:
            unpack(payload)
        except protocol.ProtocolError:
            pass


def test_attached_and_numbers() -> None:
    """Flags, credit and keys; integers of exactly their size."""
    payload = protocol.pack_attached(tty=True, stdin=False, sig_proxy=True, detach_keys=b"\x01")
    assert protocol.unpack_attached(payload) == (protocol.TTY | protocol.SIG_PROXY, protocol.STDIN_WINDOW, b"\x01")
    assert protocol.numbers("<HH", b"\1\0\2\0") == (1, 2)
    with pytest.raises(protocol.ProtocolError):
        protocol.numbers("<HH", b"\1\0\2")


def test_undecodable_paths_survive_json() -> None:
    """surrogateescape in, the same out."""
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert protocol.unpack_json(protocol.pack_json({"name": name})) == {"name": name}


@pytest.mark.parametrize("kind", [PyrunError, NotFound, Conflict])
def test_errors_keep_class_text_hint_code_and_notes(kind: type[PyrunError]) -> None:
    """What the engine raised in a worker is what the caller catches."""
    error = kind("run web", "no such image", hint="load it", code=127)
    error.add_note("while preparing")
    again = error_of(describe_error(error))
    assert type(again) is kind
    assert isinstance(again, PyrunError)
    assert (str(again), again.hint, again.code) == ("run web: no such image", "load it", 127)
    assert again.__notes__ == ["while preparing"]


@pytest.mark.parametrize("kind", ["EXIT_FAULT", "annotations", "__doc__", "nothing", None])
def test_an_error_of_an_unknown_kind_is_a_pyrun_error(kind: object) -> None:
    """The name picks a class of errors.py, and nothing else that module holds."""
    again = error_of({"kind": kind, "what": "a", "why": "b", "hint": "", "code": 125})
    assert type(again) is PyrunError


def test_other_exceptions_are_named() -> None:
    """A bug's class and text are not lost."""
    assert str(error_of(describe_error(KeyError("x")))) == "KeyError: 'x'"


# ---- detach keys


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"\x10\x11"], b"", True),
        ([b"ab\x10\x11cd"], b"ab", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10\x10x"], b"\x10\x10x", False),
        ([b"\x11\x10"], b"\x11", False),  # the second may be the beginning: held back
    ],
)
def test_detach_keys(typed: list[bytes], passed: bytes, detached: bool) -> None:
    """ctrl-p ctrl-q leaves; ctrl-p and anything else goes through, late but whole."""
    keys = DetachKeys(b"\x10\x11")
    results = [keys.feed(some) for some in typed]
    assert b"".join(out for out, _ in results) == passed
    assert results[-1][1] is detached


@given(st.binary(max_size=12).map(lambda raw: bytes(byte % 3 for byte in raw)))
def test_detach_keys_find_what_find_finds(typed: bytes) -> None:
    """Of a key sequence that repeats itself: the same place as bytes.find(), and nothing before it is lost."""
    sequence = b"\0\0\1"
    out, detached = DetachKeys(sequence).feed(typed)
    at = typed.find(sequence)
    assert detached is (at >= 0)
    if detached:
        assert out == typed[:at]
    else:
        assert typed.startswith(out)
        assert sequence.startswith(typed[len(out) :])


def test_no_detach_keys_means_none() -> None:
    """--detach-keys '' passes everything."""
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
