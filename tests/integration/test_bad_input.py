# SPDX-License-Identifier: Apache-2.0
"""What bad input gets: the right exit code, one clear line, advice where there is any, and nothing left behind."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

import machine
from half_started import until
from refusals import refused
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)

OTHER_MACHINE, OTHER_NAME = (0xB7, "arm64") if os.uname().machine == "x86_64" else (0x3E, "amd64")
OWN_MACHINE = 0x3E if os.uname().machine == "x86_64" else 0xB7
PORT_HINT = "write [ip:][host_port:]container_port[/tcp|udp|sctp]"

# arguments of `run --rm`, the line, what the hint contains; all of them end with 125
COMMAND_LINES: list[tuple[list[str], str, str]] = [
    # images and names
    (["--pull", "never", "busybx"], "no such image 'busybx': it is not here…", "did you mean busybox:latest?"),
    (["--pull", "never", "no/such:1"], "no such image 'no/such:1': it is not here…", "pyrun pull no/such:1"),
    (["Upper"], "invalid reference 'Upper': the repository name must be lower case", "write 'upper'"),
    (["--name", "a/b", "busybox"], "bad container name: 'a/b' does not match [a-zA-Z0-9][a-zA-Z0-9_.-]+", "letters"),
    (["--name", "x", "busybox"], "bad container name: 'x' does not match [a-zA-Z0-9][a-zA-Z0-9_.-]+", "two or more"),
    (["--name", "../../etc", "busybox"], "bad container name: '../../etc' does not match…", "letters"),
    (["--name", "n" * 201, "busybox"], "bad container name: 201 characters; 200 are allowed", ""),
    # flags
    (["--naem", "x", "busybox"], "run: unknown flag --naem", "did you mean --name?"),
    (["--memroy=5m", "busybox"], "run: unknown flag --memroy", "did you mean --memory?"),
    (["-Z", "busybox"], "run: unknown flag -Z", "pyrun run --help"),
    (["--name"], "run: flag --name: needs a value", "pyrun run --help"),
    ([], "run: needs at least 1 argument", "pyrun run [OPTIONS] IMAGE [COMMAND] [ARG...]"),
    (["--restart", "foo", "busybox"], "flag --restart 'foo': it must be one of no, always, unless-stopped, on-…", ""),
    (["-it", "busybox"], "run -it: the input device is not a terminal", "leave -t out"),
    (["--restart", "always", "busybox"], "--rm and --restart: a container that is removed cannot start again", ""),
    # -p
    (["-p", "abc", "busybox"], "invalid port mapping 'abc': 'abc' is not a container port", PORT_HINT),
    (["-p", "80:80:80:80", "busybox"], "invalid port mapping '80:80:80:80': '80:80' is not an IP address", PORT_HINT),
    (["-p", "99999:80", "busybox"], "invalid port mapping '99999:80': host port 99999 is above 65535", ""),
    (["-p", "80:0", "busybox"], "invalid port mapping '80:0': container port 0 does not exist", PORT_HINT),
    (["-p", "80/foo", "busybox"], "invalid port mapping '80/foo': unknown protocol 'foo'", "tcp, udp or sctp"),
    (["-p", "1-9:1-2", "busybox"], "invalid port mapping '1-9:1-2': 9 host ports for 2 container ports", "equal"),
    (["-p", "80: 80", "busybox"], "invalid port mapping '80: 80': ' 80' is not a container port", PORT_HINT),
    (["-p", "١:80", "busybox"], "invalid port mapping '١:80': '١' is not a host port", PORT_HINT),
    (["-p", "1_0:80", "busybox"], "invalid port mapping '1_0:80': '1_0' is not a host port", PORT_HINT),
    (["-p", "203.0.113.7:1:1", "busybox"], "publish 203.0.113.7:1/tcp: 203.0.113.7 is not an address of this…", "ip"),
    # mounts
    (
        ["--mount", "type=bind,source=/no/such,target=/x", "busybox"],
        "mount /no/such: no such file or directory on the host", "-v makes a missing directory",
    ),
    (["--mount", "type=bnd,target=/x", "busybox"], "--mount type=bnd,target=/x: unknown type 'bnd'", "bind, volume"),
    (["--mount", "type=bind,source=/tmp", "busybox"], "--mount type=bind,source=/tmp: no target", "absolute path"),
    (["--mount", "type=bind,sorce=/a,target=/x", "busybox"], "--mount type=bind,sorce=/a,target=/x: unk…", "'source'"),
    (["-v", "a1:b", "busybox"], "-v a1:b: target 'b' is not absolute", "begins with /"),
    (["-v", "/tmp:/x:foo", "busybox"], "-v /tmp:/x:foo: unknown option 'foo'", "one of ro rw z Z nocopy"),
    (["-v", "/tmp:/", "busybox"], "-v /tmp:/: the target cannot be /", "below it"),
    (["-v", "/tmp:/x", "-v", "/etc:/x", "busybox"], "mount on /x: two mounts have the same target", "leave one"),
    (["-v", "/etc/passwd:/etc", "busybox", "true"], "mount /etc/passwd on /etc: …", "nor a file on a directory"),
    (["-v", "/etc:/etc/passwd", "busybox", "true"], "mount /etc on /etc/passwd: not a directory", "a directory cannot"),
    (["--tmpfs", "/etc/passwd", "busybox", "true"], "mount tmpfs on /etc/passwd: not a directory", "a file there"),
    (["--tmpfs", "rel", "busybox"], "--tmpfs rel: target 'rel' is not absolute", "begins with /"),
    # identity
    (["-u", "nobody9", "busybox", "id"], "no user 'nobody9': the container's /etc/passwd does not have it", "number"),
    (["-u", "0:nogrp9", "busybox", "id"], "no group 'nogrp9': the container's /etc/group does not have it", "number"),
    (["-u", "99999999999", "busybox"], "flag -u '99999999999': ids end at 4294967294", ""),
    (["-u", "-1", "busybox"], "invalid user id '-1': write a name, or digits alone", ""),
    (["--cap-add", "NOPE", "busybox"], "unknown capability 'CAP_NOPE'", "capabilities(7)"),
    (["--cap-drop", "SYS_ADMN", "busybox"], "unknown capability 'CAP_SYS_ADMN'", "did you mean 'SYS_ADMIN'?"),
    (["--hostname", "a b", "busybox"], "flag --hostname 'a b': host names are made of letters, digits, …", ""),
    # limits
    (["--ulimit", "foo=1", "busybox"], "flag --ulimit 'foo=1': unknown limit 'foo'; one of as core cpu data…", ""),
    (["--ulimit", "nofile=a", "busybox"], "flag --ulimit 'nofile=a': 'a' is not a number", ""),
    (["--ulimit", "nofile=10:5", "busybox"], "flag --ulimit 'nofile=10:5': the soft limit is above the hard one", ""),
    (["-m", "abc", "busybox"], "flag -m 'abc': not a size: use a number with b, k, m or g, such as 512m", ""),
    (["--cpus", "-1", "busybox"], "flag --cpus '-1': '-1' is not a number", ""),
    (["--sysctl", "foo", "busybox"], "flag --sysctl 'foo': expected NAME=VALUE", ""),
    (
        ["--sysctl", "kernel.panic=1", "busybox"],
        'config.json: linux.sysctl["kernel.panic"]: it is a parameter of the whole machine, not of a namespace',
        "set it on the host",
    ),
    (["--sysctl", "net.ipv4.no=1", "busybox"], "sysctl net.ipv4.no=1: no such file or directory", "no such parameter"),
    (["--sysctl", "net.ipv4.ip_forward=x", "busybox"], "sysctl net.ipv4.ip_forward=x: invalid argument", "refuses"),
    # devices
    (["--device", "/dev/nope", "busybox"], "--device /dev/nope: no such file or directory", "ls /dev"),
    (["--device", "/etc/passwd", "busybox"], "--device /etc/passwd: not a device", "-v binds"),
    (["--device", "/dev/null:/dev/x:z", "busybox"], "--device /dev/null:/dev/x:z: access must be made of r, w…", ""),
    # the rest
    (["--network", "nonet", "busybox"], "network 'nonet': no such network", "pyrun network ls"),
    (["--network", "container:nope", "busybox"], "no such container 'nope'", ""),
    (["--security-opt", "seccomp=/nope", "busybox"], "seccomp profile /nope: cannot read it: no such file or…", ""),
    (["--security-opt", "foo", "busybox"], "flag --security-opt 'foo': no such option", "one of no-new-privileges"),
    (["--env-file", "/nope", "busybox"], "flag --env-file '/nope': cannot read it: no such file or directory", ""),
    (["-e", "=x", "busybox"], "flag -e '=x': it needs a name before '='", ""),
    (["--stop-signal", "FOO", "busybox"], "signal 'FOO': no such signal", "kill -l"),
    (["--cidfile", "/etc/passwd", "busybox"], "--cidfile /etc/passwd: the file exists", "remove it"),
    (["--add-host", "foo", "busybox"], "invalid --add-host 'foo': not NAME:ADDRESS", "db:10.0.0.5"),
    (["--dns", "x", "busybox"], "invalid --dns 'x': 'x' is not an IP address", ""),
]  # fmt: skip


@pytest.mark.parametrize(("args", "line", "hint"), COMMAND_LINES, ids=[" ".join(a)[:40] for a, _, _ in COMMAND_LINES])
def test_run_refuses(pyrun: Pyrun, base_image: str, args: list[str], line: str, hint: str) -> None:
    """`pyrun run` with a mistake in it: 125, the line, and nothing is left of the container."""
    assert base_image == "busybox:latest"
    refused(pyrun, "run", "--rm", *args, code=125, line=line, hint=hint)


def test_unknown_command(pyrun: Pyrun) -> None:
    """The nearest one is suggested."""
    refused(pyrun, "rnu", "busybox", code=125, line="unknown command 'rnu'", hint="did you mean 'run'?")


@pytest.mark.parametrize("command", [["start"], ["stop"], ["rm"], ["exec", "nope", "true"], ["logs"], ["inspect"]])
def test_no_such_container(pyrun: Pyrun, base_image: str, command: list[str]) -> None:
    """docker's exit code 1, and the name as the user wrote it."""
    words = command if len(command) > 1 else [*command, "nope"]
    done = pyrun(*words)
    assert done.rc == 1, str(done)
    assert done.err.splitlines()[0].startswith("pyrun: no such "), str(done)
    assert "'nope'" in done.err, str(done)


# ---- what is taken ---------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def test_taken_name(pyrun: Pyrun, base_image: str) -> None:
    """Whose it is, by its id; the container that has it is left alone."""
    holder = pyrun.ok("create", "--name", "taken", base_image, "true")
    for verb in ("run", "create"):
        result = pyrun(verb, "--name", "taken", base_image, "true")
        assert result.rc == (125 if verb == "run" else 1), str(result)
        assert result.err.splitlines() == [
            f"pyrun: name 'taken': container {holder[:12]} has it already",
            "hint: choose another name, or remove that container: pyrun rm taken",
        ]
    assert pyrun.ok("ps", "-aq", "--no-trunc") == holder


def test_port_taken_by_a_container(pyrun: Pyrun, base_image: str) -> None:
    """The container that has the port is named; it goes on running, and nothing else is there."""
    port = free_port()
    holder = pyrun.ok("run", "-d", "--name", "web", "-p", f"{port}:80", base_image, "sleep", "600")
    for wanted, where in ((f"{port}:81", f"{port}"), (f"127.0.0.1:{port}:81", f"127.0.0.1:{port}")):
        result = pyrun("run", "--rm", "-p", wanted, base_image, "true")
        assert result.rc == 125, str(result)
        assert result.err.splitlines()[0] == f"pyrun: publish {port}/tcp: port {where}/tcp is in use by container web"
        assert pyrun.ok("ps", "-aq", "--no-trunc") == holder
    assert pyrun.ok("inspect", "-f", "{{.State.Status}}", "web") == "running"


@pytest.fixture
def listening() -> Iterator[tuple[int, int]]:
    """(pid, port) of a process that listens on all addresses."""
    program = (
        "import socket,sys,time;s=socket.create_server(('',0));print(s.getsockname()[1],flush=True);time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


def test_port_taken_by_a_process(pyrun: Pyrun, base_image: str, listening: tuple[int, int]) -> None:
    """The process is named, with its pid."""
    pid, port = listening
    with open(f"/proc/{pid}/comm", encoding="ascii") as file:
        name = file.read().strip()
    line = f"publish {port}/tcp: port {port}/tcp is in use by process {name} (pid {pid})"
    refused(pyrun, "run", "--rm", "-p", f"{port}:80", base_image, "true", code=125, line=line, hint="another host port")


def test_port_asked_for_twice(pyrun: Pyrun, base_image: str) -> None:
    """One command that wants one port for two things."""
    port = free_port()
    args = ("run", "--rm", "-p", f"{port}:80", "-p", f"{port}:81", base_image, "true")
    line = f"publish {port}/tcp: port {port}/tcp is asked for twice"
    refused(pyrun, *args, code=125, line=line)


def test_missing_source_of_v_is_made(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """Where --mount refuses, -v makes a directory, as docker does."""
    pyrun.ok("run", "--rm", "-v", f"{tmp_path}/new/er:/x", base_image, "touch", "/x/file")
    assert (tmp_path / "new/er/file").exists()


def test_relative_and_missing_cidfile_directory(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """A --cidfile that cannot be written: no container then either."""
    path = f"{tmp_path}/no/cid"
    refused(
        pyrun, "run", "--cidfile", path, base_image, "true",
        code=125, line=f"--cidfile {path}: no such file or directory",
    )  # fmt: skip


# ---- the program -----------------------------------------------------------------------------------------------------


def elf(machine_number: int, interpreter: bytes = b"") -> bytes:
    """The head of a 64-bit ELF program, with an interpreter if one is given: enough for execve(2) to look at."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine_number, 1, 0x400000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    text = interpreter + b"\0"
    program = struct.pack("<IIQQQQQQ", 3 if interpreter else 1, 4, 120, 0x400078, 0x400078, len(text), len(text), 1)
    return header + program + text + bytes(4096)


PROGRAMS = {
    "crlf": b"#!/bin/sh\r\necho hello\r\n",
    "no-interpreter": b"#!/opt/nope/python3 -I\nprint()\n",
    "other-machine": elf(OTHER_MACHINE),
    "no-loader": elf(OWN_MACHINE, b"/lib/ld-nope.so.1"),
    "no-shebang": b"echo hello\n",
    "empty": b"",
}


@pytest.fixture(scope="module")
def bad_image(session_pyrun: Pyrun, busybox_tar: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """busybox, programs that cannot run, and a directory that only root may enter."""
    path = tmp_path_factory.mktemp("bad") / "bad.tar"
    with tarfile.open(busybox_tar) as source, tarfile.open(path, "w") as out:
        for member in source:
            out.addfile(member, source.extractfile(member) if member.isreg() else None)
        for name, content in PROGRAMS.items():
            info = tarfile.TarInfo(f"bad/{name}")
            info.mode, info.size = 0o755, len(content)
            out.addfile(info, io.BytesIO(content))
        plain = tarfile.TarInfo("bad/not-executable")
        plain.mode, plain.size = 0o644, 3
        out.addfile(plain, io.BytesIO(b"hi\n"))
        secret = tarfile.TarInfo("secret")
        secret.type, secret.mode = tarfile.DIRTYPE, 0o700
        out.addfile(secret)
    session_pyrun.ok("import", str(path), "bad:latest")
    yield "bad:latest"
    session_pyrun.ok("rmi", "-f", "bad:latest")


BAD_PROGRAMS = [
    (["nosuch"], 127, 'exec "nosuch": executable file not found in $PATH', "is it installed in the image?"),
    (["/no/such"], 127, 'exec "/no/such": no such file or directory', ""),
    (["./nosuch"], 127, 'exec "./nosuch": no such file or directory', ""),
    (["/bad/not-executable"], 126, 'exec "/bad/not-executable": permission denied', "chmod +x /bad/not-executable"),
    (["/etc"], 126, 'exec "/etc": is a directory', ""),
    (["/etc/passwd/x"], 126, 'exec "/etc/passwd/x": not a directory', ""),
    (["/dev/null"], 126, 'exec "/dev/null": permission denied', "chmod"),
    (
        ["/bad/other-machine"], 126,
        f'exec "/bad/other-machine": exec format error: it is built for {OTHER_NAME}, this machine is…',
        "use an image for",
    ),
    (
        ["/bad/no-loader"], 127,
        'exec "/bad/no-loader": no such file or directory: its loader /lib/ld-nope.so.1 does not exist…',
        "install the C library",
    ),
    (
        ["/bad/crlf"], 127,
        "exec \"/bad/crlf\": no such file or directory: its first line ends with CR LF, so the kernel looks…",
        "Unix line ends",
    ),
    (
        ["/bad/no-interpreter"], 127,
        'exec "/bad/no-interpreter": no such file or directory: its interpreter /opt/nope/python3 does not…',
        "install it in the image",
    ),
    (["/bad/no-shebang"], 126, 'exec "/bad/no-shebang": exec format error: it is neither an ELF program nor…', "#!"),
    (["/bad/empty"], 126, 'exec "/bad/empty": exec format error: the file is empty', ""),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code", "line", "hint"), BAD_PROGRAMS, ids=[one[0][0] for one in BAD_PROGRAMS])
@pytest.mark.parametrize("flags", [["--rm"], [], ["-d"]], ids=["rm", "kept", "detached"])
def test_program_that_cannot_run(
    pyrun: Pyrun, bad_image: str, flags: list[str], command: list[str], code: int, line: str, hint: str
) -> None:
    """127 for what is not there, 126 for what is no program; and why. Without --rm nothing is left either."""
    refused(pyrun, "run", *flags, bad_image, *command, code=code, line=line, hint=hint)


def test_program_that_cannot_run_in_start_and_exec(pyrun: Pyrun, bad_image: str) -> None:
    """`start` fails with the same line and leaves the container as it was; `exec` has run's exit codes, as docker's."""
    pyrun.ok("create", "--name", "bad", bad_image, "/bad/crlf")
    failed = pyrun("start", "bad")
    assert failed.rc == 1, str(failed)
    assert "its first line ends with CR LF" in failed.err, str(failed)
    shown = pyrun.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", "bad")
    assert shown.startswith('created 127 exec "/bad/crlf": no such file or directory'), shown
    pyrun.ok("run", "-d", "--name", "good", bad_image, "sleep", "600")
    for command, code, line, _ in BAD_PROGRAMS:
        done = pyrun("exec", "good", *command)
        assert done.rc == code, str(done)
        assert done.err.startswith(f"pyrun: {line.rstrip('…')}"), str(done)
    assert pyrun.ok("inspect", "-f", "{{.State.Status}}", "good") == "running"


@pytest.mark.parametrize(
    ("flags", "line", "hint"),
    [
        (["-w", "/etc/passwd"], "working directory /etc/passwd: not a directory", "file in the way"),
        (["-u", "1000", "-w", "/secret"], "working directory /secret: permission denied", "may not enter"),
        (["-u", "1000", "-w", "/secret/below"], "working directory /secret/below: permission denied", "may not enter"),
    ],
)
def test_working_directory_that_cannot_be_entered(
    pyrun: Pyrun, bad_image: str, flags: list[str], line: str, hint: str
) -> None:
    """126: the directory is there, and is not to be had."""
    refused(pyrun, "run", "--rm", *flags, bad_image, "pwd", code=126, line=line, hint=hint)


def test_relative_working_directory(pyrun: Pyrun, base_image: str) -> None:
    """Refused before anything is made."""
    line = "flag -w 'relative': the working directory must be absolute"
    refused(pyrun, "run", "--rm", "-w", "relative", base_image, "pwd", code=125, line=line)


# ---- what this machine cannot do -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("controller", "flags"),
    [("memory", ["-m", "64m"]), ("cpu", ["--cpus", "0.5"]), ("pids", ["--pids-limit", "50"])],
)
def test_limit_without_its_controller(pyrun: Pyrun, base_image: str, controller: str, flags: list[str]) -> None:
    """Refused with the controller's name and how to get it; where the controller is there, the limit works."""
    if controller in machine.cgroup2_controllers():
        pyrun.ok("run", "--rm", *flags, base_image, "true")
        return
    name = {"-m": "--memory"}.get(flags[0], flags[0])
    line = f"{name}: cgroup v2 has no {controller} controller here: …"
    refused(pyrun, "run", "--rm", *flags, base_image, "true", code=125, line=line, hint="unified_cgroup_hierarchy=1")


def test_hard_limit_that_cannot_be_raised(pyrun: Pyrun, base_image: str) -> None:
    """Without CAP_SYS_RESOURCE: which limit, what it is here, what to ask for."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    args = ("run", "--rm", "--ulimit", f"nofile={hard + 1}", base_image, "true")
    if machine.has_capability("CAP_SYS_RESOURCE"):
        pyrun.ok(*args)
        return
    line = f"--ulimit nofile: the hard limit is {hard}, and pyrun lacks CAP_SYS_RESOURCE to raise it"
    refused(pyrun, *args, code=125, line=line, hint=f"ask for at most {hard}")


def test_capability_that_pyrun_does_not_hold(pyrun: Pyrun, base_image: str) -> None:
    """--cap-add of what cannot be given."""
    if machine.has_capability("CAP_SYS_RESOURCE"):
        assert "sys_resource" in pyrun.ok("run", "--explain", "--cap-add", "SYS_RESOURCE", base_image, "true")
        return
    line = "cannot add capability CAP_SYS_RESOURCE: pyrun does not hold it, or this kernel does not know it"
    args = ("run", "--rm", "--cap-add", "SYS_RESOURCE", base_image, "true")
    refused(pyrun, *args, code=125, line=line, hint="/proc/self/status")


def test_failing_runs_side_by_side(pyrun: Pyrun, base_image: str) -> None:
    """Twenty failures at once leave as little as one."""
    running = [pyrun.popen("run", "--name", f"no{n}", "-p", "80", base_image, "nosuch") for n in range(20)]
    for process in running:
        _, err = process.communicate(timeout=60 * machine.slowness())
        assert process.returncode == 127, err
    until(lambda: pyrun.ok("ps", "-aq") == "", "the containers to be gone")
