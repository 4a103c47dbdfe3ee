# SPDX-License-Identifier: Apache-2.0
"""remove(): a container and everything of it goes."""

from __future__ import annotations

import os

from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.finish import release
from pyrun.runtime.engine.stop import SIGKILL, cancel_restart, stop
from pyrun.runtime.errors import Conflict, NotFound, PyrunError
from pyrun.runtime.events import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths


def remove(
    paths: Paths, container_id: str, *, force: bool = False, volumes: bool = False, link: WorkerLink | None = None
) -> None:
    """Removes a container; `force` kills a running one, `volumes` removes its anonymous volumes.

    Raises Conflict for a running one without `force`. With `force`, damaged state is no obstacle.
    """
    store = c.ContainerStore(paths)
    container: c.Container | None = None
    try:
        container = store.load(container_id)
        state = store.load_state(container_id)
        if state.running and state.status != c.RESTARTING and c.process_exists(state):
            if not force:
                raise Conflict(
                    f"remove {container.name}", f"it is {state.status}",
                    hint=f"pyrun stop {container.name} first, or pyrun rm -f {container.name}",
                )  # fmt: skip
            stop(paths, container_id, timeout_s=0, signal=SIGKILL, link=link)
        elif state.status == c.RESTARTING:
            cancel_restart(paths, store, container_id, link)
    except (Conflict, NotFound):
        raise
    except PyrunError:
        if not force:
            raise
    if not os.path.isdir(paths.container(container_id)):
        remove_run_directory(paths, container_id)
        return  # --rm was faster
    if container is not None:
        from pyrun.cgroups.group import Cgroup

        release(paths, container, Cgroup(container.cgroup_path), link)
    discard(paths, container_id, container, volumes=volumes)


def discard(paths: Paths, container_id: str, container: c.Container | None, *, volumes: bool) -> None:
    """Removes the files and the name of a container that holds nothing on the host any more.

    It disappears at once; if this process is killed meanwhile, recover() removes the rest of the files.
    """
    if container is not None and volumes:
        remove_anonymous_volumes(paths, container)
    with step("rootfs", f"rm -r {paths.container(container_id)}"):
        if buried := c.ContainerStore(paths).bury(container_id):
            remove_buried(buried)
    remove_run_directory(paths, container_id)


def remove_buried(path: str) -> None:
    """Removes what bury() has put aside; recover() may be at it at the same time. Raises OSError."""
    from pyrun.rootfs.inroot import remove_path

    while os.path.lexists(path):
        try:
            remove_path(path)
        except FileNotFoundError:
            continue  # the other one was faster with something in it


def remove_run_directory(paths: Paths, container_id: str) -> None:
    """<run>/<id> with its lock: nobody can want it any more."""
    from pyrun.rootfs.inroot import remove_path

    try:
        remove_path(paths.running(container_id))
    except FileNotFoundError:
        pass


def remove_anonymous_volumes(paths: Paths, container: c.Container) -> None:
    """Volumes without a name of the user's, unless another container has them too (--volumes-from)."""
    from pyrun.rootfs.volumes import VolumeStore

    names = {point.name for point in container.mounts if point.anonymous}
    if not names:
        return
    others, _ = c.ContainerStore(paths).all()
    used = {point.name for other, _ in others if other.id != container.id for point in other.mounts}
    volumes = VolumeStore(paths)
    for name in sorted(names - used):
        volumes.remove(name, force=True)
