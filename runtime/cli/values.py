# SPDX-License-Identifier: Apache-2.0
"""Parsers of single flag values: text in, the typed value of RunOptions out; ValueError with the reason."""

from __future__ import annotations

import os

from pyrun.runtime.engine.humanize import decimal, digits, parse_size, signed
from pyrun.runtime.engine.options import UNLIMITED, DeviceOption, RestartPolicy, Ulimit
from pyrun.runtime.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.netns.ports import PortSpec

ULIMITS = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
    *("rtprio", "rttime", "sigpending", "stack"),
)
MAX_ID = 2**32 - 2  # (uid_t)-1 means "leave as it is" to the kernel


def between(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        number = signed(text)
        if not least <= number <= most:
            raise ValueError(f"it must be between {least} and {most}")
        return number

    return parse


def one_of(*allowed: str) -> Callable[[str], str]:
    """A parser of a fixed set of words."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"it must be one of {', '.join(allowed)}")
        return text

    return parse


def namespace(*allowed: str, container: bool = False) -> Callable[[str], str]:
    """A parser of --pid, --ipc, --uts, --userns, --cgroupns: a word of `allowed`, or container:NAME."""

    def parse(text: str) -> str:
        if container and text.startswith("container:") and len(text) > len("container:"):
            return text
        if text not in allowed:
            words = (*allowed, "container:NAME") if container else allowed
            raise ValueError(f"it must be one of {', '.join(words)}")
        return text

    return parse


def size_or_unlimited(text: str) -> int:
    """A size, or -1 for no limit (--memory-swap)."""
    return UNLIMITED if text == "-1" else parse_size(text)


def positive_size(text: str) -> int:
    """A size above 0."""
    size = parse_size(text)
    if size == 0:
        raise ValueError("it must be more than 0")
    return size


def pids(text: str) -> int:
    """--pids-limit: a number; 0 and -1 are no limit."""
    number = signed(text)
    return number if number > 0 else UNLIMITED


def cpus(text: str) -> float:
    """--cpus: a number above 0, such as 1.5; cpu.max cannot say less than 0.01."""
    number = decimal(text)
    if number < 0.01:
        raise ValueError("it must be at least 0.01")
    return number


def cpu_list(text: str) -> str:
    """--cpuset-cpus and --cpuset-mems: "0-3,5"."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if dash and digits(last) < digits(first):
            raise ValueError(f"'{part}' runs backwards")
        digits(first)
    return text


def pair(text: str) -> tuple[str, str]:
    """NAME=value; a missing value is "" (labels)."""
    name, _, value = text.partition("=")
    if not name.strip():
        raise ValueError("it needs a name before '='")
    return name, value


def assignment(text: str) -> tuple[str, str]:
    """NAME=value with both there (sysctls, log options, annotations)."""
    name, equals, value = text.partition("=")
    if not name.strip() or not equals:
        raise ValueError("expected NAME=VALUE")
    return name, value


def log_option(text: str) -> tuple[str, str]:
    """--log-opt max-size=SIZE or max-file=NUMBER."""
    name, value = assignment(text)
    if name == "max-size":
        positive_size(value)
    elif name == "max-file":
        between(1, 1000)(value)
    else:
        raise ValueError(f"there is no log option '{name}', only max-size and max-file")
    return name, value


def pull(text: str) -> str:
    """--pull missing | always | never."""
    return one_of("missing", "always", "never")(text)


def platform(text: str) -> str:
    """--platform [OS/]ARCHITECTURE[/VARIANT] in the words of image indexes: aarch64 is linux/arm64."""
    from pyrun.rootfs.registry.manifests import parse_platform

    return str(parse_platform(text)) if text else ""


def env(text: str) -> tuple[str, str | None]:
    """-e NAME=value, or -e NAME for the value in this environment; None when it has none here."""
    name, equals, value = text.partition("=")
    if not name:
        raise ValueError("it needs a name before '='")
    return name, value if equals else os.environ.get(name)


def env_file(path: str) -> list[tuple[str, str | None]]:
    """The NAME=value lines of a file, as env(); empty lines and lines beginning with # are skipped."""
    pairs: list[tuple[str, str | None]] = []
    for number, line in _lines(path):
        name, equals, value = line.lstrip().partition("=")
        if not name or any(char.isspace() for char in name):
            raise ValueError(f"line {number}: '{name}' is no variable name")
        if equals or name in os.environ:
            pairs.append((name, value if equals else os.environ[name]))
    return pairs


def label_file(path: str) -> list[tuple[str, str]]:
    """The NAME=value lines of a file, as labels."""
    return [pair(line) for _, line in _lines(path)]


def _lines(path: str) -> list[tuple[int, str]]:
    try:
        with open(path, "rb") as file:
            data = file.read(1 << 20).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ValueError(f"cannot read it: {(error.strerror or '').lower()}") from None
    lines = enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1)
    stripped = [(number, line.removesuffix("\r")) for number, line in lines]
    return [(number, line) for number, line in stripped if line.strip() and not line.lstrip().startswith("#")]


def read_id_or_name(text: str) -> str:
    """--group-add and the like: a name, or a number that fits the kernel."""
    if not text or any(char.isspace() or char in ":/" for char in text):
        raise ValueError("it must be a name or a number")
    if text.isdigit() and digits(text) > MAX_ID:
        raise ValueError(f"ids end at {MAX_ID}")
    return text


def capability(text: str) -> str:
    """--cap-add and --cap-drop: "NET_ADMIN", "cap_net_admin" or "all", as CAP_NET_ADMIN and ALL."""
    name = text.upper()
    if not name.replace("_", "").isalnum() or not name.isascii():
        raise ValueError("it must be a capability such as NET_ADMIN, or ALL")
    return name if name == "ALL" else f"CAP_{name.removeprefix('CAP_')}"


def ulimit(text: str) -> Ulimit:
    """--ulimit NAME=SOFT[:HARD], -1 or unlimited for none."""
    name, equals, limits = text.partition("=")
    if name not in ULIMITS:
        from pyrun.runtime.oci.nearest import did_you_mean

        raise ValueError(f"unknown limit '{name}'; {did_you_mean(name, ULIMITS) or 'one of ' + ' '.join(ULIMITS)}")
    if not equals:
        raise ValueError("expected NAME=SOFT[:HARD]")
    soft, _, hard = limits.partition(":")
    low = _limit(soft)
    high = _limit(hard) if hard else low
    if high != UNLIMITED and (low == UNLIMITED or low > high):
        raise ValueError("the soft limit is above the hard one")
    return Ulimit(name, low, high)


def _limit(text: str) -> int:
    return UNLIMITED if text in ("-1", "unlimited") else digits(text)


def device(text: str) -> DeviceOption:
    """--device HOST[:CONTAINER][:PERMISSIONS]."""
    from pyrun.cgroups.device_flags import parse_device

    flag = parse_device(text)
    ordered = "".join(letter for letter in "rwm" if letter in flag.access)
    return DeviceOption(os.path.normpath(flag.host), os.path.normpath(flag.inside), ordered)


def device_rule(text: str) -> str:
    """--device-cgroup-rule "c 1:3 rwm"."""
    from pyrun.cgroups.device_flags import parse_rule

    parse_rule(text)
    return text


def device_rate(text: str) -> tuple[str, int]:
    """--device-read-bps /dev/sda:1mb."""
    path, _, rate = text.rpartition(":")
    _device_path(path)
    return path, parse_size(rate)


def device_number(text: str) -> tuple[str, int]:
    """--device-read-iops /dev/sda:1000, --blkio-weight-device /dev/sda:300."""
    path, _, number = text.rpartition(":")
    _device_path(path)
    return path, digits(number)


def _device_path(path: str) -> None:
    if not path.startswith("/dev/"):
        raise ValueError("expected /dev/NAME:VALUE")


def restart(text: str) -> RestartPolicy:
    """--restart no | always | unless-stopped | on-failure[:RETRIES]."""
    name, colon, retries = text.partition(":")
    if name not in ("no", "always", "unless-stopped", "on-failure"):
        raise ValueError("it must be one of no, always, unless-stopped, on-failure[:retries]")
    if colon and name != "on-failure":
        raise ValueError(f"only on-failure takes a number of retries, not {name}")
    return RestartPolicy(name, digits(retries) if colon else 0)


def signal_name(text: str) -> str:
    """A signal by name or number, as its name: "SIGTERM"; a nameless real-time signal stays a number."""
    from pyrun.runtime.engine.signals import number

    found = number(text)
    import signal  # loaded by number() already

    try:
        return signal.Signals(found).name
    except ValueError:
        return str(found)


def signal_number(text: str) -> int:
    """A signal as 9, KILL, SIGKILL, kill or RTMIN+3. Raises UsageError."""
    from pyrun.runtime.engine.signals import number  # loads signal, and with it enum

    return number(text)


def hostname(text: str) -> str:
    """A name of at most 64 bytes (sethostname(2)) that can stand in /etc/hosts."""
    if not 0 < len(os.fsencode(text)) <= 64:
        raise ValueError("host names have 1 to 64 bytes")
    if not all(char.isalnum() or char in "._-" for char in text):
        raise ValueError("host names are made of letters, digits, '.', '_' and '-'")
    return text


def user(text: str) -> str:
    """--user NAME|UID[:GROUP|GID]."""
    name, colon, group = text.partition(":")
    read_id_or_name(name)
    if colon:
        read_id_or_name(group)
    return text


def workdir(text: str) -> str:
    """An absolute path in the container."""
    if not text.startswith("/"):
        raise ValueError("the working directory must be absolute")
    return os.path.normpath(text)


def expose(text: str) -> list[str]:
    """--expose PORT[-PORT][/PROTOCOL], as "80/tcp" each."""
    from pyrun.netns.ports import parse_expose  # loads socket

    return [f"{port}/{protocol}" for protocol, port in parse_expose(text)]


def publish(text: str) -> tuple[PortSpec, ...]:
    """-p in every form of docker's."""
    from pyrun.netns.ports import parse_publish  # loads socket

    return parse_publish(text)


def address(text: str) -> str:
    """An IPv4 or IPv6 address."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError("that is no IP address") from None


def add_host(text: str) -> tuple[str, str]:
    """--add-host NAME:ADDRESS; host-gateway stands for this machine."""
    from pyrun.netns.files import parse_add_host

    return parse_add_host(text)


def dns(text: str) -> str:
    """--dns ADDRESS."""
    from pyrun.netns.files import parse_dns

    return parse_dns(text)


def dns_search(text: str) -> str:
    """--dns-search DOMAIN."""
    from pyrun.netns.files import parse_dns_search

    return parse_dns_search(text)


def dns_option(text: str) -> str:
    """--dns-option OPTION."""
    from pyrun.netns.files import parse_dns_option

    return parse_dns_option(text)


def mac(text: str) -> str:
    """A unicast Ethernet address such as 92:d0:c6:0a:29:33."""
    parts = text.lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts):
        raise ValueError("expected six bytes such as 92:d0:c6:0a:29:33")
    if int(parts[0], 16) & 1:
        raise ValueError("that is a multicast address")
    return ":".join(parts)


def detach_keys(text: str) -> str:
    """Keys such as ctrl-p,ctrl-q or a,b: single characters, or ctrl- and one of a-z @ [ \\ ] ^ _."""
    for key in text.split(",") if text else ():
        control = key.removeprefix("ctrl-")
        if len(control) != 1 or (key != control and control not in "abcdefghijklmnopqrstuvwxyz@[\\]^_"):
            raise ValueError("expected keys such as ctrl-p,ctrl-q")
    return text


def seccomp(text: str) -> str:
    """--security-opt seccomp=…: "unconfined", "builtin" ("" here), or the text of the profile in that file."""
    if text in ("unconfined", "builtin"):
        return text.removeprefix("builtin")
    try:
        with open(text, encoding="utf-8") as file:
            profile = file.read(1 << 20)
    except OSError as error:
        raise PyrunError(f"seccomp profile {text}", f"cannot read it: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise PyrunError(f"seccomp profile {text}", "it is not JSON text") from None
    import json

    try:
        json.loads(profile)
    except ValueError as error:
        raise PyrunError(f"seccomp profile {text}", f"it is not JSON: {error}") from None
    return profile
