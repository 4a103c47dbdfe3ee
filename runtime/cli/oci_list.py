# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci list [--format table|json] [-q]: the containers below --root."""

from __future__ import annotations

import sys

from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.runtime.cli.oci import Flags, Values
    from pyrun.runtime.oci.state import StateRoot

FLAGS: Flags = {"format": 1, "f": "format", "quiet": 0, "q": "quiet"}
COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")


def run(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """list [--format table|json] [-q]"""
    from pyrun.runtime.oci import json, look

    form = values.get("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"--format {form}", "it is table or json")
    if arguments:
        raise UsageError("list", f"takes no argument, and got {arguments[0]!r}")
    found = look.containers(root)
    if values.get("quiet"):
        sys.stdout.write("".join([f"{container['id']}\n" for container in found]))
    elif form == "json":
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        rows = [tuple([str(container[name]) for name in COLUMNS]) for container in found]
        sys.stdout.write(table((tuple([name.upper() for name in COLUMNS]), *rows)))
    return 0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of at least 12 characters with 3 spaces between them, as runc's."""
    widths = [max(12, *[len(row[index]) + 3 for row in rows]) for index in range(len(rows[0]))]
    return "".join(
        [("".join([cell.ljust(w) for cell, w in zip(row, widths, strict=True)])).rstrip() + "\n" for row in rows]
    )
