# SPDX-License-Identifier: Apache-2.0
"""qemu: its command line, its ports, and the snapshot that every run resumes from.

The guest's memory is a file: written through while the snapshot is made, mapped copy-on-write afterwards, so that
resuming reads nothing up front. The rest of the machine's state is qemu's migration stream. Both fit only the very same
devices, so a run has the devices of the snapshot whether it uses them or not. The ports are socket pairs: they have
no place in the file system, and an end of file says that the other side is gone.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

from .errors import VmError
from .packages import program

PORTS = ("ctl", "in", "out", "err")  # virtio ports of the agent, by their names in the guest
TERMINAL = "tty"  # /dev/hvc0
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check nokaslr audit=0 cgroup_no_v1=all "
    "sysrq_always_enabled"
)
SNAPSHOT_TIMEOUT = 120.0  # seconds for qemu to write the state, about 20 MB


class Hardware(NamedTuple):
    """What a machine is made of. Two machines with equal hardware can use the same snapshot."""

    kernel: str
    initramfs: str
    root: str  # disk
    venv: str  # disk, "" for none
    systemd: bool
    mebibytes: int
    cpus: int


class Shares(NamedTuple):
    """What may differ between a snapshot and the runs that resume from it."""

    checkout: str  # disk
    out: str  # directory
    hostview: str  # empty directory: the host's root file system is mounted here for qemu alone
    console: str  # file for the kernel's console, "" for none


class Machine:
    """A running qemu and this side of its ports: `ports["ctl"]` and so on. `kill()` ends it."""

    def __init__(self, hardware: Hardware, shares: Shares, snapshot: str, *, resume: bool) -> None:
        """Starts qemu on the snapshot's memory file: resumed from it, or booted to make it. Raises VmError, OSError."""
        self.ports: dict[str, socket.socket] = {}
        theirs: dict[str, socket.socket] = {}
        for name in (*PORTS, TERMINAL, "qmp"):
            self.ports[name], theirs[name] = socket.socketpair()
        argv = command_line(
            hardware, shares, {name: end.fileno() for name, end in theirs.items()}, snapshot, resume=resume
        )
        # A mount namespace of its own, in which `hostview` is the root file system alone (without /proc, /sys, /dev
        # and other mounts), read-only. qemu dies with this process, even by SIGKILL.
        view = shlex.quote(shares.hostview)
        enter = f"mount --make-rprivate / && mount --bind / {view} && mount -o remount,bind,ro {view} && exec"
        self.process = subprocess.Popen(
            [
                program("unshare"),
                "-m",
                "setpriv",
                "--pdeathsig",
                "KILL",
                "sh",
                "-c",
                f"{enter} && exec {shlex.join(argv)}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[end.fileno() for end in theirs.values()],
        )
        for end in theirs.values():
            end.close()
        if resume:
            try:
                Qmp(self.ports["qmp"]).call("migrate-incoming", uri=f"exec:cat {shlex.quote(snapshot + '/state')}")
            except BaseException:
                self.kill()
                raise

    def end_status(self) -> int | None:
        """qemu's exit status once it has closed a port by itself, None if it lives on without it."""
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Ends qemu and closes the ports; harmless the second time."""
        self.process.kill()
        self.process.wait()
        for port in self.ports.values():
            port.close()


def command_line(hardware: Hardware, shares: Shares, fds: dict[str, int], snapshot: str, *, resume: bool) -> list[str]:
    """qemu's arguments; `fds` are its ends of the ports."""
    memory = f"memory-backend-file,id=memory,size={hardware.mebibytes}M,mem-path={_quoted(snapshot)}/memory"
    argv = [program("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    argv += ["-M", "pc,memory-backend=memory", "-accel", "tcg,thread=multi", "-cpu", "max"]
    argv += ["-smp", str(hardware.cpus), "-m", str(hardware.mebibytes)]
    argv += ["-object", f"{memory},share={'off' if resume else 'on'}"]
    argv += ["-kernel", hardware.kernel, "-initrd", hardware.initramfs]
    argv += ["-append", f"{KERNEL_ARGUMENTS} vmflavour={'systemd' if hardware.systemd else 'tiny'}"]
    argv += ["-serial", f"file:{shares.console}" if shares.console else "null"]
    for disk in (hardware.root, shares.checkout, hardware.venv):  # /dev/vda, vdb, vdc
        if disk:
            argv += ["-drive", f"if=virtio,format=raw,snapshot=on,cache=unsafe,file={_quoted(disk)}"]
    argv += _share("host", shares.hostview, "security_model=passthrough,readonly=on,multidevs=remap")
    argv += _share("out", shares.out, "security_model=none,multidevs=remap")
    argv += ["-device", "virtio-serial-pci"]
    for name in (*PORTS, TERMINAL):
        kind = "virtconsole" if name == TERMINAL else "virtserialport"
        argv += ["-chardev", f"socket,id={name},fd={fds[name]}", "-device", f"{kind},chardev={name},name={name}"]
    argv += ["-chardev", f"socket,id=qmp,fd={fds['qmp']}", "-mon", "chardev=qmp,mode=control"]
    return argv + (["-incoming", "defer"] if resume else [])


def _share(name: str, path: str, options: str) -> list[str]:
    device = f"virtio-9p-pci,fsdev={name},mount_tag={name}"
    return ["-fsdev", f"local,id={name},path={_quoted(path)},{options}", "-device", device]


def _quoted(path: str) -> str:
    """A path inside one of qemu's comma-separated arguments."""
    return path.replace(",", ",,")


def make_snapshot(hardware: Hardware, shares: Shares, path: str, wait_for_agent: Callable[[Machine], None]) -> None:
    """Boots a machine, waits for its agent, writes memory and state into the directory `path`. Raises VmError."""
    machine = Machine(hardware, shares, path, resume=False)
    try:
        wait_for_agent(machine)
        qmp = Qmp(machine.ports["qmp"])
        # This stops the machine too, and the state remembers that it was running: a resumed one goes on by itself.
        qmp.call("migrate", uri=f"exec:cat > {shlex.quote(path + '/state')}")
        end = time.monotonic() + SNAPSHOT_TIMEOUT
        while (status := qmp.call("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > end:
                raise VmError(f"qemu did not write the snapshot: {status}")
            time.sleep(0.02)
    finally:
        machine.kill()


class Qmp:
    """qemu's control protocol, as much as a snapshot needs (docs/interop/qmp-spec)."""

    def __init__(self, port: socket.socket) -> None:
        port.settimeout(SNAPSHOT_TIMEOUT)
        self._file = port.makefile("rw")
        self.call("qmp_capabilities")  # its reply comes after the greeting
        # The memory is in its file already, so it is not part of the state.
        self.call("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def call(self, command: str, **arguments: object) -> dict[str, object]:
        """The result of a command. Raises VmError when qemu refuses it or is gone."""
        try:
            self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self._file.flush()
            for line in self._file:
                reply = json.loads(line)
                if "error" in reply:
                    raise VmError(f"qemu: {command}: {reply['error']['desc']}")
                if "return" in reply:
                    return dict(reply["return"])
        except OSError as error:
            raise VmError(f"qemu: {command}: {error}") from error
        raise VmError(f"qemu: {command}: {exit_text(None)}")


def exit_text(status: int | None) -> str:
    """How qemu ended, in words; `status` as Popen.poll() gives it."""
    if status is None:
        return "it closed the connection"
    return f"it was killed by {signal.Signals(-status).name}" if status < 0 else f"it exited with {status}"


def qemu_identity() -> tuple[object, ...]:
    """What tells one qemu from another: a snapshot fits only the one that made it."""
    status = os.stat(program("qemu-system-x86_64"))
    return status.st_size, status.st_mtime_ns
