# SPDX-License-Identifier: Apache-2.0
"""pyrun logout: forgets the credentials of a registry."""

from __future__ import annotations

from pyrun.runtime.cli.flags import Args, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Takes them out of docker's config.json, or out of the credential helper."""
    from pyrun.runtime.engine import login as engine

    domain = engine.registry_of(args.arguments[0] if args.arguments else "")
    if engine.logout(domain):
        ctx.print(f"Removing login credentials for {engine.shown(domain)}")
    else:
        ctx.print(f"Not logged in to {engine.shown(domain)}")
    return 0


LOGOUT = Command("logout", "[SERVER]", "Log out of a registry (default: Docker Hub)", run, most=1)
