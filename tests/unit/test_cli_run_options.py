# SPDX-License-Identifier: Apache-2.0
"""The command line of `pyrun run` as RunOptions."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrun.netns.ports import PortSpec
from pyrun.runtime.cli.flags import parse
from pyrun.runtime.cli.run import CREATE, RUN
from pyrun.runtime.cli.run_options import run_options
from pyrun.runtime.engine.options import (
    UNLIMITED,
    DeviceOption,
    MountOption,
    RestartPolicy,
    RunOptions,
    Ulimit,
)
from pyrun.runtime.errors import PyrunError, UsageError


def options(*words: str) -> RunOptions:
    return run_options(parse(RUN, words))


def test_the_plainest_run_says_nothing_but_the_image() -> None:
    """Every field but image and command keeps its default."""
    assert options("debian", "sh", "-c", "exit 3") == RunOptions("debian", ("sh", "-c", "exit 3"))


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--name web", "name", "web"),
        ("--entrypoint /bin/sh", "entrypoint", ("/bin/sh",)),
        ("--entrypoint=", "entrypoint", ()),
        ("-w /srv/../app", "workdir", "/app"),
        ("-u 1000:100", "user", "1000:100"),
        ("-h web.example", "hostname", "web.example"),
        ("-l a=b -l c -l a=d", "labels", (("a", "d"), ("c", ""))),
        ("--annotation a=b", "annotations", (("a", "b"),)),
        (
            "--cap-add net_admin --cap-add CAP_SYS_TIME --cap-add all",
            "cap_add",
            ("CAP_NET_ADMIN", "CAP_SYS_TIME", "ALL"),
        ),
        ("--cap-drop MKNOD", "cap_drop", ("CAP_MKNOD",)),
        ("--security-opt no-new-privileges", "no_new_privileges", True),
        ("--security-opt no-new-privileges:true", "no_new_privileges", True),
        ("--security-opt=no-new-privileges=false", "no_new_privileges", False),
        ("--security-opt seccomp=unconfined", "seccomp", "unconfined"),
        ("--security-opt seccomp=builtin", "seccomp", ""),
        ("--security-opt apparmor=unconfined", "apparmor", "unconfined"),
        ("--security-opt label=disable --security-opt label=type:x", "selinux_labels", ("disable", "type:x")),
        ("--security-opt systempaths=unconfined", "systempaths_unconfined", True),
        ("--device /dev/fuse", "devices", (DeviceOption("/dev/fuse", "/dev/fuse", "rwm"),)),
        ("--device /dev/sda:r", "devices", (DeviceOption("/dev/sda", "/dev/sda", "r"),)),
        ("--device /dev/sda:/dev/xvdc", "devices", (DeviceOption("/dev/sda", "/dev/xvdc", "rwm"),)),
        ("--device /dev/sda:/dev/xvdc:mr", "devices", (DeviceOption("/dev/sda", "/dev/xvdc", "rm"),)),
        ("--sysctl net.core.somaxconn=64", "sysctls", (("net.core.somaxconn", "64"),)),
        ("--shm-size 1g", "shm_size", 1 << 30),
        ("--stop-signal INT", "stop_signal", "SIGINT"),
        ("--stop-signal 9", "stop_signal", "SIGKILL"),
        ("--stop-timeout -1", "stop_timeout", -1),
        ("--restart on-failure:3", "restart", RestartPolicy("on-failure", 3)),
        ("--restart unless-stopped", "restart", RestartPolicy("unless-stopped")),
        ("--pid host", "pid", "host"),
        ("--ipc container:web", "ipc", "container:web"),
        ("--network none", "network", "none"),
        ("--net=container:web", "network", "container:web"),
        ("--network ns:/run/netns/x", "network", "ns:/run/netns/x"),
        ("--network default", "network", "bridge"),
        ("-p 5000:5000", "publish", (PortSpec(5000, "tcp", "", 5000, 5000),)),
        ("-p 127.0.0.1::80/udp -p 81", "publish", (PortSpec(80, "udp", "127.0.0.1"), PortSpec(81))),
        ("--expose 80 --expose 90-91/udp", "expose", ("80/tcp", "90/udp", "91/udp")),
        ("--dns 9.9.9.9", "dns", ("9.9.9.9",)),
        (
            "--add-host db:10.0.0.5 --add-host me:host-gateway",
            "add_hosts",
            (("db", "10.0.0.5"), ("me", "host-gateway")),
        ),
        ("--mac-address 92:D0:c6:0a:29:33", "mac_address", "92:d0:c6:0a:29:33"),
        ("--group-add audio --group-add 20", "group_add", ("audio", "20")),
        ("--oom-score-adj -500", "oom_score_adj", -500),
        ("-m 512m", "memory", 512 << 20),
        ("-m512m", "memory", 512 << 20),
        ("--memory-swap -1", "memory_swap", UNLIMITED),
        ("--memory-swap 1g", "memory_swap", 1 << 30),
        ("--cpus 1.5", "cpus", 1.5),
        ("--cpus .5", "cpus", 0.5),
        ("-c 512", "cpu_shares", 512),
        ("--cpu-shares 0", "cpu_shares", None),
        ("--cpuset-cpus 0-2,4", "cpuset_cpus", "0-2,4"),
        ("--pids-limit 10", "pids_limit", 10),
        ("--pids-limit -1", "pids_limit", UNLIMITED),
        ("--pids-limit 0", "pids_limit", UNLIMITED),
        ("--blkio-weight 300", "blkio_weight", 300),
        ("--device-read-bps /dev/sda:1mb", "device_read_bps", (("/dev/sda", 1 << 20),)),
        ("--device-write-iops /dev/sda:100", "device_write_iops", (("/dev/sda", 100),)),
        ("--ulimit nofile=1024", "ulimits", (Ulimit("nofile", 1024, 1024),)),
        ("--ulimit nofile=1024:2048", "ulimits", (Ulimit("nofile", 1024, 2048),)),
        ("--ulimit core=-1", "ulimits", (Ulimit("core", UNLIMITED, UNLIMITED),)),
        ("--ulimit core=0:unlimited", "ulimits", (Ulimit("core", 0, UNLIMITED),)),
        ("--log-opt max-size=1m --log-opt max-file=2", "log_opts", (("max-size", "1m"), ("max-file", "2"))),
        ("-v cache:/cache", "mounts", (MountOption("volume", "cache", "/cache"),)),
        ("--explain --format json", "format", "json"),
        ("--explain --format text", "format", ""),
        ("--sig-proxy=false", "sig_proxy", False),
        ("-a stdout -a stderr", "attach", ("stdout", "stderr")),
    ],
)
def test_every_flag_lands_in_its_field(words: str, field: str, value: object) -> None:
    """One flag, one field of RunOptions, parsed and normalised; nothing else changes."""
    found = options(*words.split(" "), "image")
    assert getattr(found, field) == value
    others = {name for name in RunOptions._fields if getattr(found, name) != getattr(RunOptions("image"), name)}
    assert others <= {field, "explain", "image"}


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--env-file comes before -e, the later one wins, -e NAME passes on this environment's or unsets the image's."""
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=from file\nB= spaces stay \nHERE\nNOT_HERE\nC='quotes stay'\r\n")
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.setenv("TOKEN", "x=y")
    monkeypatch.delenv("NOT_HERE", raising=False)
    found = options("-e", "A=1", "--env-file", str(file), "-e", "TOKEN", "-e", "NOT_HERE", "-e", "EMPTY=", "image")
    assert found.env == (
        ("B", " spaces stay "),
        ("HERE", "yes"),
        ("C", "'quotes stay'"),
        ("A", "1"),
        ("TOKEN", "x=y"),
        ("EMPTY", ""),
    )
    assert found.unset_env == ("NOT_HERE",)


def test_label_file(tmp_path: Path) -> None:
    """--label wins over --label-file."""
    file = tmp_path / "labels"
    file.write_text("a=1\nb=2\n")
    assert options("--label-file", str(file), "-l", "b=3", "image").labels == (("a", "1"), ("b", "3"))


def test_seccomp_profile_is_read(tmp_path: Path) -> None:
    """The profile's text goes into the options, so that a later start does not need the file."""
    file = tmp_path / "profile.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert options("--security-opt", f"seccomp={file}", "image").seccomp == '{"defaultAction": "SCMP_ACT_ALLOW"}'
    file.write_text("{")
    with pytest.raises(PyrunError, match="it is not JSON"):
        options("--security-opt", f"seccomp={file}", "image")
    with pytest.raises(PyrunError, match="cannot read it: no such file or directory"):
        options("--security-opt", f"seccomp={tmp_path}/missing", "image")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-m abc", "flag -m 'abc': not a size: use a number with b, k, m or g, such as 512m"),
        ("-m -1", "flag -m '-1': not a size"),
        ("--cpus 0", "flag --cpus '0': it must be at least 0.01"),
        ("--cpus 1e3", "flag --cpus '1e3': '1e3' is not a number"),
        ("--cpus ٣", "flag --cpus '٣': '٣' is not a number"),
        ("--pids-limit +5", "flag --pids-limit '+5': '+5' is not a number"),
        ("--oom-score-adj 1001", "flag --oom-score-adj '1001': it must be between -1000 and 1000"),
        ("--blkio-weight 1001", "it must be between 0 and 1000"),
        ("--cpuset-cpus 3-1", "'3-1' runs backwards"),
        ("--cpuset-cpus a", "'a' is not a number"),
        ("--ulimit nofil=1", "unknown limit 'nofil'; did you mean 'nofile'?"),
        ("--ulimit nofile", "expected NAME=SOFT[:HARD]"),
        ("--ulimit nofile=5:4", "the soft limit is above the hard one"),
        ("--ulimit nofile=-1:4", "the soft limit is above the hard one"),
        ("--restart sometimes", "it must be one of no, always, unless-stopped, on-failure[:retries]"),
        ("--restart always:3", "only on-failure takes a number of retries"),
        ("--restart on-failure:-1", "'-1' is not a number"),
        ("--stop-signal NOPE", "signal 'NOPE': no such signal"),
        ("--stop-signal 99", "signal '99': no such signal"),
        ("--pid somewhere", "it must be one of host, private"),
        ("--ipc container:", "it must be one of private, shareable, none, host"),
        ("--network container:", "expected container:NAME or ns:/PATH"),
        ("--network ns:relative", "expected container:NAME or ns:/PATH"),
        ("--device fuse", "--device fuse: needs absolute paths"),
        ("--device /dev/fuse:rwx", "--device /dev/fuse:rwx: needs absolute paths"),
        ("--device-cgroup-rule x", "not a rule"),
        ("--sysctl net.core.somaxconn", "expected NAME=VALUE"),
        ("-e =x", "it needs a name before '='"),
        ("--env-file /nonexistent", "flag --env-file '/nonexistent': cannot read it: no such file or directory"),
        ("-h a_b/c", "host names are made of letters, digits, '.', '_' and '-'"),
        ("-h " + "a" * 65, "host names have 1 to 64 bytes"),
        ("-u 4294967295", "ids end at 4294967294"),
        ("-u a:b:c", "it must be a name or a number"),
        ("-w app", "the working directory must be absolute"),
        ("-p x", "'x' is not a container port"),
        ("--expose 0", "port 0 does not exist"),
        ("--dns 1.2.3", "'1.2.3' is not an IP address"),
        ("--ip 10.0.0", "that is no IP address"),
        ("--mac-address 01:00:5e:00:00:01", "that is a multicast address"),
        ("--mac-address 1:2", "expected six bytes"),
        ("--detach-keys ctrl-1", "expected keys such as ctrl-p,ctrl-q"),
        ("--security-opt nope", "flag --security-opt 'nope': no such option"),
        ("--pull often", "it must be one of missing, always, never"),
        ("--platform linux/", "platform 'linux/': not a platform"),
        ("--log-opt max-size=lots", "not a size"),
        ("--log-opt max-size=0", "it must be more than 0"),
        ("--log-opt max-file=0", "it must be between 1 and 1000"),
        ("--log-opt tag=x", "there is no log option 'tag', only max-size and max-file"),
        ("--oom-kill-disable", "pyrun does not have it"),
        ("--memory-swappiness 10", "pyrun does not have it"),
        ("--shm-size 0", "it must be more than 0"),
        ("--rm --restart always", "--rm and --restart: a container that is removed cannot start again"),
        ("-d -a stdout", "-d and -a: a detached container has nothing attached"),
        ("--network host --mac-address 92:d0:c6:0a:29:33", "--mac-address and --network host"),
        ("--network container:web -p 80:80", "--publish and --network container:…: the network is web's"),
        ("--network container:web -h x", "--hostname and --network container:…"),
        ("--uts host -h x", "--hostname and --uts=host: that would rename this machine"),
        ("--cpus 1 --cpu-quota 1000", "--cpus and --cpu-quota: both say the same thing"),
        ("--format json", "--format: it belongs to --explain and --trace"),
        ("--explain --trace", "--explain and --trace"),
        ("-v one:/x -v two:/x", "mount on /x: two mounts have the same target"),
        ("--tmpfs /x -v two:/x", "mount on /x: two mounts have the same target"),
    ],
)
def test_bad_values_are_refused_in_one_line(words: str, message: str) -> None:
    """The line names the flag and the reason; nothing is passed on to be found out later."""
    with pytest.raises(UsageError) as caught:
        options(*words.split(" "), "image")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_network_in_its_long_form() -> None:
    """--network name=…,alias=…,ip=… as docker has it."""
    found = options("--network", "name=lab,alias=db,alias=sql,ip=10.1.2.3", "--network-alias", "main", "image")
    assert (found.network, found.network_aliases, found.ip) == ("lab", ("main", "db", "sql"), "10.1.2.3")
    with pytest.raises(UsageError, match="unknown key 'alais'"):
        options("--network", "name=lab,alais=x", "image")


def test_create_takes_the_same_flags() -> None:
    """`pyrun create` and `pyrun run` understand each other's command lines, -d included."""
    assert {flag.name for flag in CREATE.flags} == {flag.name for flag in RUN.flags}
    assert run_options(parse(CREATE, ["-a", "stdout", "-d", "image"])).attach == ("stdout",)


def test_every_flag_of_the_table_is_used() -> None:
    """No flag is accepted and then forgotten: each one changes RunOptions, is refused, or is one of docker's no-ops."""
    from pyrun.runtime.cli import run_options as module

    used = {*module.SAME, *module.TUPLES, *module.ZERO_IS_UNSET}
    by_hand = {
        "format",
        "entrypoint",
        "env",
        "env-file",
        "label",
        "label-file",
        "expose",
        "publish",
    }
    by_hand |= {"ulimit", "volume", "mount", "tmpfs", "security-opt", "network"}
    no_ops = {"disable-content-trust", "no-healthcheck", "volume-driver"}
    names = {flag.name for flag in RUN.flags if not flag.refused}
    assert names == used | by_hand | no_ops
    fields = {name.replace("-", "_") for name in (*module.SAME, *module.ZERO_IS_UNSET)} | set(module.TUPLES.values())
    assert fields <= set(RunOptions._fields)
