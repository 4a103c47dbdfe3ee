# SPDX-License-Identifier: Apache-2.0
"""scripts/vm: a disposable VM with a full cgroup v2 hierarchy, resumed from a snapshot, that runs one command.

    cli.py        the command line and the exit codes
    prepare.py    from nothing to a resumed machine, in order
    packages.py   the programs of the host that this needs, installed when missing
    cache.py      the cache directory: entries named by a hash of what they are made from, a lock, old entries removed
    base.py       Debian's root file system and kernel (mmdebstrap), as a disk and a vmlinux
    initramfs.py  busybox, the modules for the disks and ports, guest/init.sh and guest/agent.sh
    disks.py      the virtual environment and the checkout as disks
    machine.py    qemu: its command line, its ports, the snapshot
    session.py    one command in the VM: the agent's protocol, streams, the terminal, timeouts
    guest/        what runs inside: shell, read by busybox

The snapshot is taken when the guest has everything in its page cache and waits for the host's first line; every run
resumes from there. It holds the virtual environment's disk, mounted; the checkout's disk comes after, so that an edit
of a source file does not need another snapshot. Standard library only: this runs before the project is installed.
"""
