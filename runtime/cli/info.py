# SPDX-License-Identifier: Apache-2.0
"""pyrun info: this machine, and what of pyrun works on it."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import Args, Command
from pyrun.runtime.engine import humanize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """What there is; then every check, and for what is missing how to get it."""
    from pyrun.runtime.engine.info import info

    found = info(ctx.paths)
    form = args.text("format")
    if form:
        output.print_rows(ctx, [found], form, {}, ())
        return 0
    ctx.print(*_summary(found), "", "What works here:")
    for check in found["Checks"]:
        ctx.print(f"  {'yes' if check['Ok'] else 'NO ':<3}  {check['Name']:<18} {check['Detail']}")
        if check["Hint"]:
            ctx.print(f"{'':26}to get it: {check['Hint']}")
    return 0


def _summary(found: dict[str, Any]) -> list[str]:
    counts = f"{found['ContainersRunning']} running, {found['ContainersPaused']} paused"
    rows = {
        "Containers": f"{found['Containers']} ({counts}, {found['ContainersStopped']} stopped)",
        "Images": found["Images"],
        "Version": found["ServerVersion"],
        "Monitor": found["Monitor"],
        "Data root": found["DataRoot"],
        "Run root": found["RunRoot"],
        "Machine": f"{found['Name']}, {found['NCPU']} CPUs, {humanize.binary_size(found['MemTotal'])}",
        "System": f"{found['OperatingSystem']}, kernel {found['KernelVersion']}, {found['Architecture']}",
    }
    return [f"{name + ':':<12}{value}" for name, value in rows.items()]


INFO = Command("info", "", "Show this machine, and what works on it", run, (output.INSPECT_FORMAT,), most=0)
