# SPDX-License-Identifier: Apache-2.0
"""The same Dockerfiles built here and by docker's BuildKit: the same config, the same files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

import buildtrees
import dockerd
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli import Pyrun
    from dockerd import Dockerd

pytestmark = requires(root=True, tools=("docker", "dockerd"))

# Debian's BuildKit is of 2020: no heredocs, no --link, --parents, --exclude, --unpack
CASES = {
    "variables": (
        "FROM busybox\nARG A=1\nENV X=$A Y=\"two words\" Z='q' W=${A:+set}${B:-unset}\nWORKDIR /w/$A\nCOPY . .\n"
        'RUN echo $X > out\nENV X=new OLD=$X\nCMD ["a","b c"]\n'
    ),
    "shell and entrypoint": 'FROM busybox\nSHELL ["/bin/sh","-ec"]\nCMD x\nENTRYPOINT exec top -b\nRUN true\n',
    "entrypoint alone": "FROM busybox\nENTRYPOINT top\n",
    "metadata": (
        'FROM busybox\nLABEL a=b "c d"="e f" multi="line \\\n two"\nEXPOSE 80 443/udp 100-102\nVOLUME /v1 /v2\n'
        'VOLUME ["/v 3"]\nUSER 1000:1000\nSTOPSIGNAL 9\n'
        'HEALTHCHECK --interval=1m30s --timeout=3s --retries=2 CMD ["true"]\n'
        "ONBUILD COPY . /x\nMAINTAINER me <m@e>\n"
    ),
    "copy": (
        "FROM busybox\nCOPY d1 /new\nCOPY d1/ /new2/\nCOPY f1 /exist\nCOPY f1 /dir/\nCOPY f1 f2 /many/\n"
        "COPY d*/a* /glob/\nCOPY --chown=1:2 f1 /owned\nCOPY link /link\nCOPY dlink /dlink\nRUN ln -s /new /sym\n"
        "COPY f2 /sym/\nCOPY d1 /tmp/\nCOPY --chown=7 d1 /number\nCOPY f1 /new/sub/deeper/name\n"
    ),
    "add": (
        "FROM busybox\nADD t.tar.gz /un/\nADD t.tar /un2\nADD f1 /plain\nADD --chown=5 d1 /owned/\n"
        "COPY t.tar /copied.tar\n"
    ),
    "stages": (
        "FROM busybox AS a\nRUN mkdir /o; echo 1 > /o/f; chown 7:8 /o/f; chmod 4711 /o/f; ln -s f /o/l; ln /o/f /o/h\n"
        "FROM a AS b\nRUN rm /o/l; echo 2 > /o/g\nFROM busybox\nCOPY --from=a /o /fa\nCOPY --from=b /o/ /fb/\n"
        "COPY --from=1 --chown=3 /o/g /\nCOPY --from=busybox /bin/busybox /bb\n"
    ),
    "run": (
        "FROM busybox\nRUN rm -r /home; mkdir -p /a/b; touch /a/b/c; mv /a /z; mkfifo /ff; "
        "echo $HOME-$(hostname)-$(pwd)-$(umask) > /info\nUSER 33\nWORKDIR /usr33\nRUN echo $HOME $(id -u) > /tmp/i\n"
        'RUN ["sh", "-c", "echo $0 exec > /tmp/e"]\n'
    ),
    "scratch": "FROM scratch\nCOPY f1 /\nCOPY d1 /deep/er/\nENV PATH=/x\nCMD []\nENTRYPOINT []\n",
    "workdir": (
        "FROM busybox\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c\nWORKDIR /tmp/\nENV D=/q\nWORKDIR $D/r\nRUN pwd > p\n"
        "RUN ln -s /tmp /lnk\nWORKDIR /lnk/below\n"
    ),
    "arguments": (
        "ARG B=busybox\nFROM ${B:-x} AS base\nARG B\nARG N=${B}2 M\nARG TARGETARCH\n"
        'RUN echo "[$B][$N][$M][$TARGETARCH]" > /o\nFROM base\nRUN echo "[$B][$N][$M]" > /o2\nLABEL n=$N\nENV N=env\n'
        'ARG N=arg\nRUN echo "$N" > /o3\n'
    ),
    "mounts": (
        "FROM busybox\nRUN mkdir /mnt\n"
        "RUN --mount=type=bind,target=/mnt ls /mnt > /l; touch /mnt/x 2>/dev/null || echo ro > /ro\n"
        "RUN --mount=type=bind,rw,target=/mnt touch /mnt/x && ls /mnt | wc -l > /l2\n"
        "RUN --mount=type=tmpfs,target=/mnt touch /mnt/x\nRUN ls -a /mnt > /left\n"
    ),
}


@pytest.fixture(scope="module")
def docker(busybox_tar: str) -> Iterator[Dockerd]:
    """A daemon with the same busybox."""
    try:
        with dockerd.started() as daemon:
            daemon.ok("import", "--change", 'CMD ["sh"]', busybox_tar, "busybox:latest")
            yield daemon
    except dockerd.CannotStart as error:
        pytest.skip(str(error))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Files, directories, links and archives."""
    top = buildtrees.make(tmp_path / "context", {
        "f1": "one", "f2 0600": "two", "d1/a1": "x", "d1/sub/x 0755": "y", "d1/b": "z", "d2/a2": "w",
        "link": ("link", "f1"), "dlink": ("link", "d1"), "d1/a.skip": "", "d1/b.skip": "",
        ".dockerignore": "Dockerfile\n.dockerignore\n**/*.skip\n!d1/b.skip\n",
    })  # fmt: skip
    for name, mode in (("t.tar", "w"), ("t.tar.gz", "w:gz")):
        with tarfile.open(top / name, mode) as tar:  # type: ignore[call-overload]
            for inside in ("top/in", "exist"):
                info = tarfile.TarInfo(inside)
                info.size, info.uid, info.mtime, info.mode = 2, 9, 1000, 0o640
                tar.addfile(info, io.BytesIO(b"hi"))
    return top


def listing(data: bytes) -> dict[str, tuple[Any, ...]]:
    """What is in a tar of a root file system, but for what containers have of their own."""
    found = {}
    own = ("", "etc", "dev", "proc", "sys", ".dockerenv", "dockerenv")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = member.name.strip("./")
            file = tar.extractfile(member) if member.isreg() else None
            content = file.read() if file is not None else b""
            if name not in own and not name.startswith(("etc/", "dev/", "proc/", "sys/", "bin/", "usr/")):
                found[name] = (member.type, member.mode & 0o7777, member.uid, member.gid, member.linkname, content)
    return found


@pytest.mark.parametrize("case", CASES)
def test_same_as_docker(pyrun: Pyrun, base_image: str, docker: Dockerd, context: Path, case: str) -> None:
    """Config and files of the image are those that BuildKit makes."""
    (context / "Dockerfile").write_text(CASES[case])
    words = ("build", "-q", "--network", "none", "-t", "peer:1", str(context))
    theirs = subprocess.run(
        [docker.client, "-H", f"unix://{docker.socket}", *words], capture_output=True, text=True, check=False,
        env={**os.environ, "DOCKER_BUILDKIT": "1", "HOME": docker.directory},
    )  # fmt: skip
    assert theirs.returncode == 0, theirs.stderr
    image_id = pyrun.ok(*words)
    inspected = json.loads(docker.ok("image", "inspect", "peer:1"))[0]
    blob = os.path.join(pyrun.paths.data, "images/blobs/sha256", image_id.removeprefix("sha256:"))
    with open(blob) as file:
        document = json.load(file)
    expected = {name: value for name, value in inspected["Config"].items() if value not in (None, "", [], {}, False)}
    for name in ("Hostname", "Domainname", "Image", "ArgsEscaped"):
        expected.pop(name, None)
    assert document["config"] == expected
    assert document.get("author", "") == inspected.get("Author", "")
    container = docker.ok("create", "peer:1", "x")
    exported = subprocess.run(
        [docker.client, "-H", f"unix://{docker.socket}", "export", container], capture_output=True, check=True
    ).stdout
    docker.ok("rm", container)
    ours = subprocess.run(
        [pyrun.command, "build", "-o", "-", *words[2:]], capture_output=True, check=True, env=pyrun.environ
    ).stdout
    mine, other = listing(ours), listing(exported)
    assert sorted(mine) == sorted(other)
    assert [(name, mine[name], other[name]) for name in mine if mine[name] != other[name]] == []
