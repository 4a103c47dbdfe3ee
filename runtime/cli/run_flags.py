# SPDX-License-Identifier: Apache-2.0
"""The flags of run and create, as a table. runtime/cli/run_options.py makes RunOptions of them.

A flag whose name is a field of RunOptions (dashes as underscores) is copied there as it is parsed.
"""

from __future__ import annotations

from pyrun.runtime.cli import values
from pyrun.runtime.cli.flags import LIST, SWITCH, VALUE, Flag
from pyrun.runtime.engine.humanize import digits, parse_size, signed
from pyrun.runtime.engine.mount_options import parse_mount, parse_tmpfs, parse_volume
from pyrun.runtime.engine.options import DETACH_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOW, PROCESS, SEES, MAY = "How it runs", "The process", "What it sees", "What it may do"
NETWORK, LIMITS, OUTPUT = "Network", "Limits", "Output"


def _flag(group: str, spec: str, text: str, parse: Any = None, kind: str = VALUE, **more: Any) -> Flag:
    """One line of the table: `spec` is "[-s,]long[ metavar]"."""
    names, _, metavar = spec.partition(" ")
    short, _, name = names.rpartition(",")
    return Flag(name, short.lstrip("-"), kind, text, metavar, parse=parse, group=group, **more)


def _health(*names: str) -> tuple[Flag, ...]:
    return tuple(Flag(name, refused="health checks are not there yet; check from outside", group=HOW) for name in names)


FLAGS = (
    _flag(HOW, "-d,detach", "run in the background and print the id", kind=SWITCH),
    _flag(HOW, "-i,interactive", "keep stdin open even if not attached", kind=SWITCH),
    _flag(HOW, "-t,tty", "give it a terminal", kind=SWITCH),
    _flag(
        HOW,
        "-a,attach STREAM",
        "connect only these: stdin, stdout, stderr",
        values.one_of("stdin", "stdout", "stderr"),
        LIST,
    ),
    _flag(HOW, "rm", "remove the container and its anonymous volumes when it ends", kind=SWITCH),
    _flag(HOW, "name NAME", "call it so instead of adjective_noun"),
    _flag(HOW, "restart POLICY", "when it ends: no, always, unless-stopped, on-failure[:retries]", values.restart),
    _flag(HOW, "cidfile FILE", "write the container's id to a new file"),
    _flag(HOW, "pull WHEN", "whether to pull the image first: missing, always, never", values.pull, default="missing"),
    _flag(HOW, "platform OS/ARCH[/VARIANT]", "the image's, such as linux/arm64", values.platform),
    _flag(HOW, "detach-keys KEYS", "keys that leave it running", values.detach_keys, default=DETACH_KEYS),
    _flag(HOW, "sig-proxy", "pass signals on to the process", kind=SWITCH, default=True),
    _flag(HOW, "stop-signal SIGNAL", "what stop sends, instead of the image's signal or SIGTERM", values.signal_name),
    _flag(
        HOW, "stop-timeout SECONDS", "how long stop waits before SIGKILL; -1 is for ever", values.between(-1, 2**31 - 1)
    ),
    _flag(HOW, "explain", "print the plan of the start; run nothing", kind=SWITCH),
    _flag(HOW, "trace", "print every step with its result and time on stderr", kind=SWITCH),
    _flag(HOW, "format FORMAT", "of --explain and --trace: text, json", values.one_of("text", "json")),
    _flag(HOW, "-q,quiet", "do not show the pull", kind=SWITCH),
    _flag(PROCESS, "entrypoint PROGRAM", "run this instead of the image's entrypoint; '' for none"),
    _flag(PROCESS, "-e,env NAME[=VALUE]", "set a variable, or pass on this environment's", values.env, LIST),
    _flag(PROCESS, "env-file FILE", "set the variables in a file of NAME=VALUE lines", values.env_file, LIST),
    _flag(PROCESS, "-w,workdir DIR", "working directory", values.workdir),
    _flag(PROCESS, "-u,user NAME[:GROUP]", "user and group, by name or number", values.user),
    _flag(PROCESS, "group-add GROUP", "an additional group", values.read_id_or_name, LIST),
    _flag(PROCESS, "init", "a small init as PID 1 that passes on signals and reaps", kind=SWITCH),
    _flag(PROCESS, "ulimit NAME=SOFT[:HARD]", "a resource limit, such as nofile=1024:4096", values.ulimit, LIST),
    _flag(PROCESS, "oom-score-adj NUMBER", "-1000 (never killed) to 1000 (killed first)", values.between(-1000, 1000)),
    _flag(SEES, "-v,volume [SOURCE:]TARGET[:OPTIONS]", "a directory of the host or a volume", parse_volume, LIST),
    _flag(SEES, "mount KEY=VALUE,…", "type=bind|volume|tmpfs,source=…,target=…,readonly,…", parse_mount, LIST),
    _flag(SEES, "tmpfs TARGET[:OPTIONS]", "an empty file system in memory", parse_tmpfs, LIST),
    _flag(SEES, "volumes-from CONTAINER[:ro]", "the volumes of another container", None, LIST),
    _flag(SEES, "volume-driver NAME", "the driver of volumes that are made", values.one_of("local"), hidden=True),
    _flag(SEES, "read-only", "the root file system cannot be written", kind=SWITCH),
    _flag(SEES, "shm-size SIZE", "of /dev/shm (64m)", values.positive_size),
    _flag(SEES, "-h,hostname NAME", "host name", values.hostname),
    _flag(SEES, "domainname NAME", "NIS domain name", values.hostname),
    _flag(SEES, "device PATH[:PATH][:rwm]", "a device of the host", values.device, LIST),
    _flag(
        SEES, "pid MODE", "PID namespace: host, container:NAME", values.namespace("host", "private", "", container=True)
    ),
    _flag(
        SEES,
        "ipc MODE",
        "IPC namespace: private, shareable, none, host, container:NAME",
        values.namespace("private", "shareable", "none", "host", "", container=True),
    ),
    _flag(SEES, "uts MODE", "UTS namespace: host", values.namespace("host", "private", "")),
    _flag(SEES, "userns MODE", "user namespace: host", values.namespace("host", "")),
    _flag(SEES, "cgroupns MODE", "cgroup namespace: private, host", values.namespace("private", "host", "")),
    _flag(SEES, "-l,label NAME[=VALUE]", "a label", values.pair, LIST),
    _flag(SEES, "label-file FILE", "the labels in a file of NAME=VALUE lines", values.label_file, LIST),
    _flag(SEES, "annotation NAME=VALUE", "an OCI annotation", values.assignment, LIST),
    _flag(MAY, "privileged", "all capabilities and devices, no seccomp, nothing masked", kind=SWITCH),
    _flag(MAY, "cap-add CAPABILITY", "such as NET_ADMIN, or ALL", values.capability, LIST),
    _flag(MAY, "cap-drop CAPABILITY", "such as MKNOD, or ALL", values.capability, LIST),
    _flag(
        MAY,
        "security-opt OPTION",
        "no-new-privileges, seccomp=FILE|unconfined, apparmor=…, label=…, systempaths=unconfined",
        None,
        LIST,
    ),
    _flag(MAY, "device-cgroup-rule RULE", "such as 'c 1:3 rwm'", values.device_rule, LIST),
    _flag(MAY, "sysctl NAME=VALUE", "a kernel parameter of its namespaces", values.assignment, LIST),
    _flag(
        NETWORK, "network MODE", "bridge, none, host, container:NAME, ns:PATH, or a network's name", aliases=("net",)
    ),
    _flag(
        NETWORK,
        "-p,publish [[ADDRESS:]PORT:]PORT[/PROTOCOL]",
        "make a port reachable from outside",
        values.publish,
        LIST,
    ),
    _flag(NETWORK, "-P,publish-all", "publish every exposed port on a free one", kind=SWITCH),
    _flag(NETWORK, "expose PORT[/PROTOCOL]", "a port that the program listens on", values.expose, LIST),
    _flag(
        NETWORK, "network-alias NAME", "a further name on its network", values.hostname, LIST, aliases=("net-alias",)
    ),
    _flag(NETWORK, "ip ADDRESS", "IPv4 address", values.address),
    _flag(NETWORK, "ip6 ADDRESS", "IPv6 address", values.address),
    _flag(NETWORK, "mac-address ADDRESS", "Ethernet address", values.mac),
    _flag(NETWORK, "dns ADDRESS", "a name server", values.dns, LIST),
    _flag(NETWORK, "dns-search DOMAIN", "a search domain; '.' for none", values.dns_search, LIST),
    _flag(NETWORK, "dns-option OPTION", "a resolver option", values.dns_option, LIST, aliases=("dns-opt",)),
    _flag(
        NETWORK, "add-host NAME:ADDRESS", "a line of /etc/hosts; host-gateway is this machine", values.add_host, LIST
    ),
    _flag(LIMITS, "-m,memory SIZE", "memory, such as 512m or 1.5g", parse_size),
    _flag(LIMITS, "memory-swap SIZE", "memory and swap together; -1 is no limit", values.size_or_unlimited),
    _flag(LIMITS, "memory-reservation SIZE", "memory to leave it when memory is short", parse_size),
    _flag(LIMITS, "cpus NUMBER", "processors' worth of time, such as 1.5", values.cpus),
    _flag(LIMITS, "-c,cpu-shares NUMBER", "relative weight (1024)", values.between(0, 262144)),
    _flag(LIMITS, "cpu-period MICROSECONDS", "length of a scheduling period", digits),
    _flag(LIMITS, "cpu-quota MICROSECONDS", "time in each period", signed),
    _flag(LIMITS, "cpuset-cpus LIST", "processors it may run on, such as 0-3,5", values.cpu_list),
    _flag(LIMITS, "cpuset-mems LIST", "memory nodes it may use", values.cpu_list),
    _flag(LIMITS, "pids-limit NUMBER", "processes; -1 is no limit", values.pids),
    _flag(LIMITS, "blkio-weight NUMBER", "relative I/O weight, 10 to 1000", values.between(0, 1000)),
    _flag(LIMITS, "blkio-weight-device PATH:NUMBER", "the same for one device", values.device_number, LIST),
    _flag(LIMITS, "device-read-bps PATH:RATE", "bytes per second", values.device_rate, LIST),
    _flag(LIMITS, "device-write-bps PATH:RATE", "bytes per second", values.device_rate, LIST),
    _flag(LIMITS, "device-read-iops PATH:NUMBER", "operations per second", values.device_number, LIST),
    _flag(LIMITS, "device-write-iops PATH:NUMBER", "operations per second", values.device_number, LIST),
    _flag(LIMITS, "cgroup-parent PATH", "the cgroup to put it below"),
    _flag(OUTPUT, "log-driver NAME", "json-file, none", values.one_of("json-file", "none"), default="json-file"),
    _flag(OUTPUT, "log-opt NAME=VALUE", "max-size=10m, max-file=3", values.log_option, LIST),
    # docker's flags that mean nothing here
    Flag("disable-content-trust", kind=SWITCH, hidden=True),
    Flag("no-healthcheck", kind=SWITCH, hidden=True),
    *_health(
        "health-cmd",
        "health-interval",
        "health-retries",
        "health-start-interval",
        "health-start-period",
        "health-timeout",
    ),
    Flag("gpus", refused="pass the devices with --device"),
    Flag("runtime", refused="pyrun is the runtime"),
    Flag("storage-opt", refused="the size of a root file system cannot be limited"),
    Flag("link", refused="containers on one network reach each other by address; see --add-host"),
    Flag("link-local-ip", refused="use --ip"),
    Flag("isolation", refused="it is for Windows"),
    Flag("memory-swappiness", refused="cgroup v2 has no such setting; see --memory-swap"),
    Flag("oom-kill-disable", kind=SWITCH, refused="cgroup v2 cannot do that; see --oom-score-adj"),
    Flag("kernel-memory", refused="cgroup v2 has no such limit; use --memory"),
    Flag("cpu-rt-period", refused="cgroup v2 has no such limit; use --cpus"),
    Flag("cpu-rt-runtime", refused="cgroup v2 has no such limit; use --cpus"),
)
