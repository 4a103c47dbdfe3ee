# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin for `--collect-only`: writes what each test needs to the file that $VM_MARKS names, as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Node id -> the keyword arguments of its `requires` marks."""
    needs = {item.nodeid: [mark.kwargs for mark in item.iter_markers("requires")] for item in session.items}
    Path(os.environ["VM_MARKS"]).write_text(json.dumps(needs), encoding="utf-8")
