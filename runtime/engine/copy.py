# SPDX-License-Identifier: Apache-2.0
"""copy_out(), copy_in(): files between a container and the host, the container running or not.

Nothing enters the container: a running one's root is a descriptor of /proc/<pid>/root, a stopped one's is its layers
and its upper directory; below both every path is resolved in the root (CVE-2018-15664, CVE-2019-14271).
"""

from __future__ import annotations

import os
import sys

from pyrun.runtime.engine import containers as c
from pyrun.runtime.errors import Conflict, PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.rootfs.archive import Tree
    from pyrun.runtime.paths import Paths

STREAM = "-"


def copy_out(
    paths: Paths, container_id: str, source: str, target: str, *, archive: bool = False, follow: bool = False
) -> None:
    """`cp CONTAINER:SOURCE TARGET`; "-" writes a tar to stdout. Raises NotFound, Conflict, ArchiveError."""
    from pyrun.rootfs import archive as rootfs_archive

    tree, root_fd = container_tree(paths, container_id)
    tree.where = f"in container {c.ContainerStore(paths).load(container_id).name}"
    try:
        with tree:
            if target == STREAM:
                if os.isatty(1):
                    raise PyrunError("cp to -", "standard output is a terminal", hint="redirect it: … > archive.tar")
                for chunk in rootfs_archive.tar(tree, source, follow=follow):
                    sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
                return
            directory, below = rootfs_archive.host_target(target)
            owner = None if archive else (os.getuid(), os.getgid())
            with rootfs_archive.Tree.host(directory) as host:
                # without -a only what an ordinary user could make: no set-user-id file, no device, no attribute
                rootfs_archive.copy(tree, source, host, below, follow=follow, owner=owner, plain=not archive)
    finally:
        if root_fd >= 0:
            os.close(root_fd)


def copy_in(
    paths: Paths, container_id: str, source: str, target: str, *, archive: bool = False, follow: bool = False
) -> None:
    """`cp SOURCE CONTAINER:TARGET`; "-" reads a tar from stdin. Raises NotFound, Conflict, ArchiveError."""
    from pyrun.rootfs import archive as rootfs_archive

    owner = None if archive else (0, 0)
    tree, root_fd = container_tree(paths, container_id)
    try:
        with tree:
            if source == STREAM:
                rootfs_archive.extract(sys.stdin.buffer, tree, target, owner=None)
                return
            directory, below, name = rootfs_archive.host_source(source, follow=follow)
            with rootfs_archive.Tree.host(directory) as host:
                rootfs_archive.copy(host, below, tree, target, follow=follow, owner=owner, name=name)
    finally:
        if root_fd >= 0:
            os.close(root_fd)


def container_tree(paths: Paths, container_id: str) -> tuple[Tree, int]:
    """The container's files, and the descriptor of a running one's root (-1: stopped), the caller's to close."""
    from pyrun.rootfs.archive import MountedAt, Tree
    from pyrun.rootfs.store import ImageStore

    store = c.ContainerStore(paths)
    container = store.load(container_id)
    state = store.load_state(container_id)
    if state.running and c.process_exists(state):
        root_fd = os.open(f"/proc/{state.pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not c.process_exists(state):  # checked again: what was opened could be a later process's of that pid
                raise Conflict(f"cp of {container.name}", "it ended just now", hint="try again")
            with open(f"/proc/{state.pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                return Tree.running(root_fd, file.read()), root_fd
        except BaseException:
            os.close(root_fd)
            raise
    images = ImageStore(paths)
    layers = images.unpacked(images.resolve(container.image_id))
    mounts = [MountedAt(p.target, p.source, p.readonly) for p in container.mounts if p.type != "tmpfs"]
    return Tree.stopped(f"{paths.container(container_id)}/upper", tuple(reversed(layers)), mounts), -1
