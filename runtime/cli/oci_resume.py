# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci resume ID: a paused container goes on."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.runtime.cli.oci import Flags, Values
    from pyrun.runtime.oci.state import StateRoot

FLAGS: Flags = {}


def run(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """resume ID"""
    from pyrun.runtime.cli.oci import one_id
    from pyrun.runtime.oci import look

    look.resume(root, one_id(arguments))
    return 0
