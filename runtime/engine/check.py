# SPDX-License-Identifier: Apache-2.0
"""Refusing options before anything is made: what can be seen to fail at the start is said at once, with the reason."""

from __future__ import annotations

import os

from pyrun.runtime import events
from pyrun.runtime.engine.options import UNLIMITED, RunOptions
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
                f"--ulimit {limit.name}", f"the hard limit is {hard}, and pyrun lacks CAP_SYS_RESOURCE to raise it",
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


#: option -> the controller that it needs
CONTROLLERS = {
    "memory": "memory", "memory_swap": "memory", "memory_reservation": "memory", "cpus": "cpu", "cpu_shares": "cpu",
    "cpu_period": "cpu", "cpu_quota": "cpu", "cpuset_cpus": "cpuset", "cpuset_mems": "cpuset", "pids_limit": "pids",
    "blkio_weight": "io", "blkio_weight_device": "io", "device_read_bps": "io", "device_write_bps": "io",
    "device_read_iops": "io", "device_write_iops": "io",
}  # fmt: skip


def limit_controllers(paths: Paths, options: RunOptions) -> None:
    """A limit that was asked for and cannot be kept is refused, by the name it was asked by (invariant 7)."""
    from pyrun.cgroups import controllers, mount, resources
    from pyrun.runtime.engine import config
    from pyrun.runtime.engine.resolve import block_devices

    # a value that makes no sense anywhere is said before what this machine lacks
    nobody = config.Resolved(0, 0, (), "", (), None, {}, block_devices=block_devices(options))
    resources.parse(config.resources(options, nobody), "config.json: linux.resources")

    asked: dict[str, str] = {}
    for option, controller in CONTROLLERS.items():
        value = getattr(options, option)
        if value and value != UNLIMITED:
            asked.setdefault(controller, f"--{option.replace('_', '-')}")
    refusal = controllers.missing(asked, mount.find(), ()) if asked else None
    if refusal is not None:
        raise refusal


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
    if options.network == "host" and options.uts == "host" and options.hostname:
        raise UsageError("-h with --uts host", "it would rename the host")


def network(paths: Paths, options: RunOptions) -> None:
    """What cannot be said with the network mode is refused; what has no effect with it is a warning, as with docker."""
    from pyrun.netns import mode

    wanted = mode.parse(options.network)
    for warning in mode.check(
        wanted,
        hostname=options.hostname,
        published=bool(options.publish or options.publish_all),
        exposed=bool(options.expose),
        dns=bool(options.dns),
        added_hosts=bool(options.add_hosts),
        mac_address=options.mac_address,
        ip=options.ip,
    ):
        events.warn(warning)
    if wanted.kind == mode.NS:
        os.close(mode.open_netns(wanted.value))


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
    system, restart, modes, network, limits, limit_controllers, ulimits, oom_score, bind_sources,
)  # fmt: skip


def options(paths: Paths, wanted: RunOptions) -> None:
    """Every check in turn. Raises UsageError, Unsupported, PyrunError."""
    for check in CHECKS:
        check(paths, wanted)
