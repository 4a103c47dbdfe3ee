# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the security tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from security.layer_place import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A directory to unpack hostile layers into; at the test's end nothing beside it may have changed."""
    found = Place(tmp_path)
    yield found
    found.check()
