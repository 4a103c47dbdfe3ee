# SPDX-License-Identifier: Apache-2.0
"""The monitor's parser under arbitrary bytes, cut anywhere: frames within their limits, or a ProtocolError."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyrun.runtime.monitor.protocol import HEADER, LIMITS, SMALL, Parser, ProtocolError

HEADERS = st.builds(HEADER.pack, st.integers(0, 2**32 - 1) | st.integers(0, 200), st.integers(0, 255))


@given(st.lists(st.binary(max_size=80) | HEADERS, max_size=30))
def test_arbitrary_bytes_are_frames_or_refused(pieces: list[bytes]) -> None:
    """Nothing is lost, made up or held back: what was taken out is what was put in, less an unfinished frame."""
    parser, taken = Parser(), b""
    try:
        for piece in pieces:
            for kind, payload in parser.feed(piece):
                assert len(payload) <= LIMITS.get(kind, SMALL)
                taken += HEADER.pack(len(payload), kind) + payload
    except ProtocolError:
        return
    given_bytes = b"".join(pieces)
    assert given_bytes.startswith(taken)
    assert parser.empty == (given_bytes == taken)
