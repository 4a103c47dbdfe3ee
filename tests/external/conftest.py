# SPDX-License-Identifier: Apache-2.0
"""The other programs, each on roots of its own for the whole session.

docker    a private dockerd and calls of its client (tests/dockerd.py)      podman    podman (tests/podman.py)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import dockerd
import podman as podmen

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def docker() -> Iterator[dockerd.Dockerd]:
    """A dockerd of the session's own. A machine on which it does not start skips, which no CI expects."""
    try:
        with dockerd.started() as running:
            yield running
    except dockerd.CannotStart as error:
        pytest.skip(f"requires tools: {error}")


@pytest.fixture(scope="session")
def podman() -> Iterator[podmen.Podman]:
    """podman with a storage of the session's own."""
    with podmen.ready() as ready:
        yield ready
