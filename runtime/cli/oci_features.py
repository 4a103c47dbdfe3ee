# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci features: what this runtime can do, as JSON (features.md, features-linux.md of the runtime-spec)."""

from __future__ import annotations

import sys

from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.runtime.cli.oci import Flags, Values
    from pyrun.runtime.oci.state import StateRoot

FLAGS: Flags = {}


def run(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """features"""
    from pyrun.runtime.oci import features, json

    if arguments:
        raise UsageError("features", f"takes no argument, and got {arguments[0]!r}")
    sys.stdout.write(json.dumps(features.features(), indent=2) + "\n")
    return 0
