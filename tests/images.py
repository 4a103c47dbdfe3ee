# SPDX-License-Identifier: Apache-2.0
"""Images for the tests with other programs: one with everything in it that can go wrong, and trees to compare."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli import Pyrun

# What each program makes for its own mounts, or has in its containers and not in its images
STUBS = {
    ".", ".dockerenv", "dev", "proc", "sys", "run", "run/.containerenv", "run/secrets", "etc/hosts", "etc/hostname",
    "etc/resolv.conf", "etc/mtab", "etc",
}  # fmt: skip

# Run in busybox: all kinds of files, and all kinds of changes to what is below
MAKE = """
set -e
mkdir -p /data/sub/deep /keep; echo one >/data/one; echo two >/data/sub/two; echo deep >/data/sub/deep/three
ln /data/one /data/hard; ln -s one /data/soft; ln -s /data/sub /absolute; echo x >/data/exec
chmod 4755 /data/exec; chown 12:34 /data/sub/two; chmod 1777 /keep; mkfifo /data/pipe
echo long >"/data/$(printf %0120d 7)"; echo utf >/data/grün; : >/data/empty
dd if=/dev/zero of=/data/zeros bs=1k count=70
touch -t 200102030405.06 /data/one
"""
CHANGE = """
set -e
rm /data/sub/two; rm -r /data/sub/deep; echo more >>/data/one; mv /data/exec /data/moved
rm -r /keep; mkdir /keep; echo new >/keep/new; rm /data/soft; mkdir /data/soft; echo dir >/data/soft/in
"""
CONFIG = (
    'CMD ["sh", "-c", "cat /data/one /keep/new; echo $GREETING; id -u; pwd"]', "ENV GREETING='hello world'",
    "WORKDIR /data", "USER 12", "LABEL team=a note='two words'", "EXPOSE 80 53/udp", "VOLUME /vol", "STOPSIGNAL SIGINT",
)  # fmt: skip
SAYS = "one\nmore\nnew\nhello world\n12\n/data"
# What every program's commit understands
PORTABLE = tuple(change for change in CONFIG if not change.startswith(("EXPOSE", "STOPSIGNAL")))
CONFIG_KEYS = ("Cmd", "Env", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes", "StopSignal")


def make(pyrun: Pyrun, base: str, name: str) -> str:
    """An image of three layers called `name`, made with run and commit; its id. Running it prints SAYS."""
    pyrun.ok("run", "--name", "maker", "--network", "none", base, "sh", "-c", MAKE)
    pyrun.ok("commit", "maker", f"{name}-base")
    pyrun.ok("rm", "maker")
    pyrun.ok("run", "--name", "changer", "--network", "none", f"{name}-base", "sh", "-c", CHANGE)
    flags = [word for change in CONFIG for word in ("-c", change)]
    image = pyrun.ok("commit", *flags, "-a", "somebody", "-m", "what for", "changer", name)
    pyrun.ok("rm", "changer")
    return image


def tree(archive: bytes) -> dict[str, tuple[object, ...]]:
    """path -> what is there, of a tar of a root file system; names of one file are told by the first of them."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for info in tar:
            name = info.name.removeprefix("./").strip("/") or "."
            if name in STUBS or name.startswith(("dev/", "proc/", "sys/")):
                continue
            if info.type == tarfile.LNKTYPE:
                found[name] = found[info.linkname.removeprefix("./").lstrip("/")]
                continue
            content = tar.extractfile(info) if info.isreg() else None
            digest = hashlib.sha256(content.read()).hexdigest() if content else ""
            times = info.mtime if info.isreg() else 0
            found[name] = (info.type, info.mode & 0o7777, info.uid, info.gid, info.linkname, digest, int(times))
    return found
