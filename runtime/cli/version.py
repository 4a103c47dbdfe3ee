# SPDX-License-Identifier: Apache-2.0
"""pyrun version: the versions of pyrun and of what it stands on."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import Args, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context

LABELS = {
    "Version": "pyrun",
    "Python": "Python",
    "Pyroute2": "pyroute2",
    "Libseccomp": "libseccomp",
    "KernelVersion": "kernel",
}


def run(args: Args, ctx: Context) -> int:
    """docker's templates work: {{.Client.Version}}, {{.Server.Version}}."""
    from pyrun.runtime.engine.info import versions

    found = versions()
    if args.text("format"):
        output.print_rows(ctx, [{**found, "Client": found, "Server": found}], args.text("format"), {}, ())
        return 0
    ctx.print(*(f"{label + ':':<12}{found[name]}" for name, label in LABELS.items()))
    ctx.print(f"{'machine:':<12}{found['Os']}/{found['Arch']}")
    return 0


VERSION = Command(
    "version", "", "Show the versions of pyrun and what it stands on", run, (output.INSPECT_FORMAT,), most=0
)
