# SPDX-License-Identifier: Apache-2.0
"""The command line of run and create as RunOptions; and the rules that hold between flags."""

from __future__ import annotations

from pyrun.runtime.cli import values
from pyrun.runtime.engine.options import RunOptions
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from pyrun.runtime.cli.flags import Args
    from pyrun.runtime.engine.options import MountOption

# flags whose value goes into the field of the same name as it is
SAME = {
    *(
        "detach",
        "interactive",
        "tty",
        "rm",
        "name",
        "restart",
        "cidfile",
        "pull",
        "platform",
        "detach-keys",
        "sig-proxy",
    ),
    *(
        "stop-signal",
        "stop-timeout",
        "explain",
        "trace",
        "quiet",
        "workdir",
        "user",
        "init",
        "oom-score-adj",
        "read-only",
    ),
    *(
        "shm-size",
        "hostname",
        "domainname",
        "uts",
        "userns",
        "cgroupns",
        "pid",
        "ipc",
        "privileged",
        "publish-all",
        "ip",
    ),
    *("ip6", "mac-address", "memory", "memory-swap", "memory-reservation", "cpus", "cpuset-cpus"),
    *("cpuset-mems", "pids-limit", "cgroup-parent", "log-driver"),
}
# repeatable flags -> the field that holds their tuple
TUPLES = {
    "attach": "attach",
    "group-add": "group_add",
    "annotation": "annotations",
    "volumes-from": "volumes_from",
    "device": "devices",
    "device-cgroup-rule": "device_cgroup_rules",
    "sysctl": "sysctls",
    "cap-add": "cap_add",
    "cap-drop": "cap_drop",
    "network-alias": "network_aliases",
    "dns": "dns",
    "dns-search": "dns_search",
    "dns-option": "dns_options",
    "add-host": "add_hosts",
    "blkio-weight-device": "blkio_weight_device",
    "device-read-bps": "device_read_bps",
    "device-write-bps": "device_write_bps",
    "device-read-iops": "device_read_iops",
    "device-write-iops": "device_write_iops",
    "log-opt": "log_opts",
}
# docker's "0 is not said"
ZERO_IS_UNSET = {"cpu-shares", "cpu-period", "cpu-quota", "blkio-weight"}


def run_options(args: Args) -> RunOptions:
    """What `pyrun run` or `pyrun create` was asked for. Raises UsageError for flags that contradict each other."""
    fields: dict[str, Any] = {"image": args.arguments[0], "command": tuple(args.arguments[1:])}
    if not args.arguments[0]:
        raise UsageError(args.command.name, "the image's name is empty")
    for name, value in args.flags.items():
        if name in SAME:
            fields[name.replace("-", "_")] = value
        elif name in TUPLES:
            fields[TUPLES[name]] = tuple(value)
        elif name in ZERO_IS_UNSET and value:
            fields[name.replace("-", "_")] = value
    if args.given("format"):
        fields["format"] = "json" if args.text("format") == "json" else ""
    if args.given("entrypoint"):
        fields["entrypoint"] = (args.text("entrypoint"),) if args.text("entrypoint") else ()
    fields["env"], fields["unset_env"] = environment(args)
    fields["labels"] = tuple(
        dict([pair for file in args.many("label-file") for pair in file] + args.many("label")).items()
    )
    fields["expose"] = tuple(dict.fromkeys(port for ports in args.many("expose") for port in ports))
    fields["publish"] = tuple(spec for specs in args.many("publish") for spec in specs)
    fields["ulimits"] = tuple({limit.name: limit for limit in args.many("ulimit")}.values())
    fields["mounts"] = _mounts(args)
    for option in args.many("security-opt"):
        fields |= security_option(option, fields)
    fields |= _network(args.text("network"), fields)
    options = RunOptions(**{name: value for name, value in fields.items() if value != getattr(RunOptions, name, ...)})
    for rule in RULES:
        rule(options, args)
    return options


def environment(args: Args) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """--env-file, then --env: the variables to set, and those to take out of the image's."""
    final: dict[str, str | None] = {}
    for name, value in [pair for file in args.many("env-file") for pair in file] + args.many("env"):
        final.pop(name, None)
        final[name] = value
    pairs = tuple((name, value) for name, value in final.items() if value is not None)
    return pairs, tuple(name for name, value in final.items() if value is None)


def _mounts(args: Args) -> tuple[MountOption, ...]:
    mounts: list[MountOption] = [*args.many("volume"), *args.many("mount"), *args.many("tmpfs")]
    seen: set[str] = set()
    for mount in mounts:
        if mount.target in seen:
            raise UsageError(
                f"mount on {mount.target}", "two mounts have the same target", hint="leave one of them out"
            )
        seen.add(mount.target)
    return tuple(mounts)


def security_option(text: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that one --security-opt sets: NAME, NAME=VALUE or docker's old NAME:VALUE. Raises UsageError."""
    cut = min((at for at in (text.find("="), text.find(":")) if at >= 0), default=len(text))
    name, value = text[:cut], text[cut + 1 :]
    if name == "no-new-privileges" and value in ("", "true", "false"):
        return {"no_new_privileges": value != "false"}
    if name == "seccomp" and value:
        return {"seccomp": values.seccomp(value)}
    if name == "apparmor" and value:
        return {"apparmor": value}
    if name == "label" and value:
        return {"selinux_labels": (*fields.get("selinux_labels", ()), value)}
    if name == "systempaths" and value == "unconfined":
        return {"systempaths_unconfined": True}
    hint = "one of no-new-privileges, seccomp=FILE|unconfined, apparmor=NAME, label=…, systempaths=unconfined"
    raise UsageError(f"flag --security-opt '{text}'", "no such option", hint=hint)


def _network(text: str, fields: dict[str, Any]) -> dict[str, Any]:
    """--network MODE, or docker's long form name=…,alias=…,ip=…,mac-address=…."""
    if text in ("", "default"):
        return {}
    mode, _, rest = text.partition(":")
    if (mode in ("container", "ns") and not rest) or (mode == "ns" and not rest.startswith("/")):
        raise UsageError(f"flag --network '{text}'", "expected container:NAME or ns:/PATH")
    if "name=" not in text:
        return {"network": text}
    found: dict[str, Any] = {}
    known: dict[str, tuple[str, Callable[[str], str]]] = {
        "name": ("network", str),
        "alias": ("network_aliases", values.hostname),
        "ip": ("ip", values.address),
        "ip6": ("ip6", values.address),
        "mac-address": ("mac_address", values.mac),
    }
    for item in text.split(","):
        key, _, value = item.partition("=")
        if key not in known:
            raise UsageError(f"flag --network '{text}'", f"unknown key '{key}'", hint=f"one of {', '.join(known)}")
        field, parse = known[key]
        try:
            parsed = parse(value)
        except ValueError as error:
            raise UsageError(f"flag --network '{text}'", str(error)) from None
        before = found.get(field, fields.get(field, ()))
        found[field] = (*before, parsed) if key == "alias" else parsed
    return found


# ── rules between flags ──────────────────────────────────────────────────────────────────────────────────────────


def _conflict(flags: str, why: str, hint: str = "") -> UsageError:
    return UsageError(flags, why, hint=hint)


def _rm_and_restart(options: RunOptions, _: Args) -> None:
    if options.rm and options.restart.name != "no":
        raise _conflict("--rm and --restart", "a container that is removed cannot start again")


def _detach_and_attach(options: RunOptions, args: Args) -> None:
    if options.detach and options.attach and args.command.name == "run":
        raise _conflict("-d and -a", "a detached container has nothing attached")


def _shared_namespaces(options: RunOptions, _: Args) -> None:
    shared = options.network.split(":")[0] in ("host", "container")
    owned: Iterable[tuple[str, object]] = (
        ("--mac-address", options.mac_address),
        ("--ip", options.ip),
        ("--ip6", options.ip6),
        ("--network-alias", options.network_aliases),
    )
    for flag, value in owned:
        if value and (shared or options.network == "none"):
            raise _conflict(
                f"{flag} and --network {options.network}", "that network is not the container's to configure"
            )
    if not options.network.startswith("container:"):
        return
    taken: Iterable[tuple[str, object]] = (
        ("--hostname", options.hostname),
        ("--publish", options.publish),
        ("--expose", options.expose),
        ("--dns", options.dns),
        ("--add-host", options.add_hosts),
    )
    for flag, value in taken:
        if value:
            other = options.network.removeprefix("container:")
            raise _conflict(f"{flag} and --network container:…", f"the network is {other}'s", f"give {flag} to {other}")


def _uts_and_hostname(options: RunOptions, _: Args) -> None:
    if options.uts == "host" and (options.hostname or options.domainname):
        raise _conflict("--hostname and --uts=host", "that would rename this machine")


def _format_alone(options: RunOptions, _: Args) -> None:
    if options.format and not (options.explain or options.trace):
        raise _conflict("--format", "it belongs to --explain and --trace", "to format a listing use pyrun ps --format")


def _cpus_and_quota(options: RunOptions, _: Args) -> None:
    if options.cpus is not None and (options.cpu_quota or options.cpu_period):
        raise _conflict("--cpus and --cpu-quota", "both say the same thing", "use one of them")


def _explain_and_trace(options: RunOptions, _: Args) -> None:
    if options.explain and options.trace:
        raise _conflict("--explain and --trace", "one runs nothing, the other runs it", "use one of them")


RULES = (
    _rm_and_restart,
    _detach_and_attach,
    _shared_namespaces,
    _uts_and_hostname,
    _format_alone,
    _cpus_and_quota,
    _explain_and_trace,
)
