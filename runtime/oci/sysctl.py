# SPDX-License-Identifier: Apache-2.0
"""Which kernel parameters a container may set: those that belong to one of its own namespaces, and no others.

/proc/sys is only partly namespaced; everything else there is the host's (CVE-2022-0811 wrote kernel.core_pattern
through a smuggled setting). So this is a list of what is allowed, never of what is forbidden.
"""

from __future__ import annotations

from .reader import wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Exact names, and the namespace that each belongs to (ipc: ipc/ipc_sysctl.c; uts: kernel/utsname_sysctl.c).
NAMES: dict[str, str] = {
    "kernel.auto_msgmni": "ipc",
    "kernel.msg_next_id": "ipc",
    "kernel.msgmax": "ipc",
    "kernel.msgmnb": "ipc",
    "kernel.msgmni": "ipc",
    "kernel.sem": "ipc",
    "kernel.sem_next_id": "ipc",
    "kernel.shm_next_id": "ipc",
    "kernel.shm_rmid_forced": "ipc",
    "kernel.shmall": "ipc",
    "kernel.shmmax": "ipc",
    "kernel.shmmni": "ipc",
    "kernel.domainname": "uts",
}

# Everything below these belongs to the namespace. In a network namespace other than the first one the kernel shows
# only those of net.* that are the namespace's own.
PREFIXES: dict[str, str] = {"fs.mqueue.": "ipc", "net.": "network", "user.": "user"}

_PUNCTUATION = frozenset("._-/:@%")  # names of interfaces and of the parameters themselves


def path(name: str) -> str:
    """The path of a parameter below /proc/sys: "net.ipv4.ip_forward" and "net/ipv4/ip_forward" give the same.

    As in sysctl(8), the first separator decides: after a first "/", dots are part of a name ("net/ipv4/conf/eth0.1/…");
    after a first ".", a "/" stands for a dot inside a component.
    """
    slash, dot = name.find("/"), name.find(".")
    if slash >= 0 and (dot < 0 or slash < dot):
        return name
    return name.translate({ord("."): "/", ord("/"): "."})


def namespace_of(name: str) -> str:
    """The namespace type that the parameter belongs to, or "" if it is the whole machine's."""
    dotted = path(name).translate({ord("."): "/", ord("/"): "."})
    if dotted in NAMES:
        return NAMES[dotted]
    for prefix, kind in PREFIXES.items():
        if dotted.startswith(prefix) and len(dotted) > len(prefix):
            return kind
    return ""


def check(name: str, value: str, private: Iterable[str], where: str) -> None:
    """Raises SpecError unless the parameter belongs to one of the namespace types in `private`.

    `private` are the types that the container has for itself or shares with other containers, but not with the host.
    """
    steps = path(name).split("/")
    if not name.isascii() or any(not (char.isalnum() or char in _PUNCTUATION) for char in name):
        raise wrong(where, f"{name!r} is not the name of a kernel parameter")
    if "" in steps or "." in steps or ".." in steps:
        raise wrong(where, f"{name!r} is not the name of a kernel parameter")
    if any((char < " " and char != "\t") or char == "\x7f" for char in value):
        raise wrong(where, "the value contains a control character")
    kind = namespace_of(name)
    if name in ("kernel.hostname", "kernel/hostname"):
        raise wrong(where, "the host name has a field of its own", hint='set "hostname" instead')
    if not kind:
        raise wrong(where, "it is a parameter of the whole machine, not of a namespace", hint="set it on the host")
    if kind not in private:
        raise wrong(where, f"it needs a {kind} namespace of the container's own, and it shares the host's")
