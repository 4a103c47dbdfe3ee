# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci ps [--format table|json] ID [ps options]: the container's processes, by the host's pids."""

from __future__ import annotations

import sys

from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.runtime.cli.oci import Flags, Values
    from pyrun.runtime.oci.state import StateRoot

FLAGS: Flags = {"format": 1, "f": "format"}


def run(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """ps [--format table|json] ID [ps options]"""
    from pyrun.runtime.oci import json, look

    form = values.get("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"--format {form}", "it is table or json")
    if not arguments:
        raise UsageError("container id", "exactly one is needed")
    container_id, *options = arguments
    found = look.pids(root, container_id)
    if form == "json":
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(look.ps_table(options or ["-ef"], found))
    return 0
