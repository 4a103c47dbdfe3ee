# SPDX-License-Identifier: Apache-2.0
"""Refusing options before anything is made: what can be seen to fail at the start is said at once, with the reason."""

from __future__ import annotations

import os

from pyrun.runtime.engine.options import RunOptions
from pyrun.runtime.errors import PyrunError, Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.runtime.paths import Paths


def bind_sources(paths: Paths, options: RunOptions) -> None:
    """--mount refuses a missing source; -v makes a directory of it, as docker does."""
    for mount in options.mounts:
        if mount.type != "bind" or os.path.lexists(mount.source):
            continue
        if not mount.create_source:
            raise UsageError(
                f"mount {mount.source}", "no such file or directory on the host",
                hint="--mount wants an existing source; -v makes a missing directory",
            )  # fmt: skip
        try:
            os.makedirs(mount.source, 0o755)
        except OSError as error:
            raise PyrunError(f"make {mount.source} for -v", (error.strerror or "").lower()) from None


def ulimits(paths: Paths, options: RunOptions) -> None:
    """A hard limit above ours can be set only with CAP_SYS_RESOURCE."""
    if not options.ulimits:
        return
    import resource

    from pyrun.runtime.oci import capabilities, rlimits

    if "CAP_SYS_RESOURCE" in capabilities.names(capabilities.held().effective):
        return
    for limit in options.ulimits:
        _, hard = resource.getrlimit(rlimits.NUMBERS[f"RLIMIT_{limit.name.upper()}"])
        if hard != resource.RLIM_INFINITY and (limit.hard < 0 or limit.hard > hard):
            raise Unsupported(
                f"--ulimit {limit.name}", f"the hard limit here is {hard}, and pyrun lacks CAP_SYS_RESOURCE to raise it",
                hint=f"ask for at most {hard}, or raise the limit of whatever starts pyrun",
            )  # fmt: skip


def oom_score(paths: Paths, options: RunOptions) -> None:
    """A value below ours needs CAP_SYS_RESOURCE."""
    if options.oom_score_adj is None:
        return
    from pyrun.runtime.oci import capabilities

    with open("/proc/self/oom_score_adj", "rb") as file:
        own = int(file.read())
    if options.oom_score_adj < own and "CAP_SYS_RESOURCE" not in capabilities.names(capabilities.held().effective):
        raise Unsupported(
            f"--oom-score-adj {options.oom_score_adj}",
            f"pyrun's own is {own}, and it lacks CAP_SYS_RESOURCE to lower it",
        )


def limits(paths: Paths, options: RunOptions) -> None:
    """Controllers for the limits that were asked for, and values that make sense together."""
    if options.cpus and (options.cpu_quota or options.cpu_period):
        raise UsageError("--cpus", "cannot be joined with --cpu-quota or --cpu-period", hint="say it in one way")
    if options.memory_swap is not None and options.memory_swap > 0:
        if options.memory is None:
            raise UsageError("--memory-swap", "needs --memory: it is memory and swap together")
        if options.memory_swap < options.memory:
            raise UsageError("--memory-swap", "must not be smaller than --memory: it is memory and swap together")
    if (
        options.memory is not None
        and options.memory_reservation is not None
        and options.memory_reservation > options.memory
    ):
        raise UsageError("--memory-reservation", "must not be larger than --memory")


def restart(paths: Paths, options: RunOptions) -> None:
    """--rm removes what --restart would start again."""
    if options.rm and options.restart.name != "no":
        raise UsageError(
            "--rm and --restart", "a container cannot be removed and started again", hint="leave one of them out"
        )


def modes(paths: Paths, options: RunOptions) -> None:
    """Namespaces that do not go together."""
    if options.userns not in ("", "host"):
        raise Unsupported(
            f"--userns {options.userns}", "only the host's user namespace is supported yet", hint="--userns host"
        )
    if options.network == "host" and (options.publish or options.publish_all):
        raise UsageError("-p with --network host", "the container has the host's own ports", hint="leave -p out")
    if options.network in ("none",) and options.publish:
        raise UsageError(
            "-p with --network none", "there is no network to publish from", hint="leave -p or --network out"
        )
    if options.network.startswith(("container:", "ns:")):
        if options.publish or options.publish_all:
            raise UsageError(f"-p with --network {options.network}", "the ports are those of the network's owner")
        if options.hostname and options.network.startswith("container:"):
            raise UsageError(f"-h with --network {options.network}", "it has the other container's host name")
    if options.network in ("host",) and options.uts == "host" and options.hostname:
        raise UsageError("-h with --uts host", "it would rename the host")
    if options.ip and options.network in ("none", "host"):
        raise UsageError(f"--ip with --network {options.network}", "there is no address to choose")


def system(paths: Paths, options: RunOptions) -> None:
    """Rights and mounts without which nothing can start."""
    from pyrun.cgroups import mount

    if os.geteuid() != 0:
        raise Unsupported(
            "run", "root is needed: running as an ordinary user is not supported yet",
            hint="sudo pyrun …; --explain works without root",
        )  # fmt: skip
    mount.find()


CHECKS: tuple[Callable[[Paths, RunOptions], None], ...] = (
    system, restart, modes, limits, ulimits, oom_score, bind_sources,
)  # fmt: skip


def options(paths: Paths, wanted: RunOptions) -> None:
    """Every check in turn. Raises UsageError, Unsupported, PyrunError."""
    for check in CHECKS:
        check(paths, wanted)
