# SPDX-License-Identifier: Apache-2.0
"""Removing what nothing needs: stopped containers, images, volumes, build cache. What the `prune` commands do."""

from __future__ import annotations

import time

from pyrun.runtime.engine import humanize
from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pyrun.rootfs.image import Image
    from pyrun.rootfs.keeping import Keep
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths

FILTERS = ("until", "label", "label!")


class Freed(Record):
    """What was removed, line by line as docker prints it, the bytes that became free, and what could not be removed.

    Of the build cache `records` too: id, size in bytes, and when it was last used, in seconds since the epoch.
    """

    lines: tuple[str, ...] = ()
    bytes: int = 0
    problems: tuple[PyrunError, ...] = ()
    records: tuple[tuple[str, int, float], ...] = ()


class Filter(Record):
    """What --filter leaves over: only things older than `until_ns`, with all of `labels`, with none of `without`."""

    until_ns: int | None = None
    labels: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def fits(self, created_ns: int, labels: Mapping[str, str]) -> bool:
        """Whether a thing may be removed as far as the filter goes."""
        if self.until_ns is not None and created_ns >= self.until_ns:
            return False
        return all(_has(labels, text) for text in self.labels) and not any(_has(labels, text) for text in self.without)


EVERYTHING = Filter()


def parse_filters(pairs: Iterable[tuple[str, str]]) -> Filter:
    """--filter until=, label=, label!= as a Filter; of several until the earliest counts. Raises UsageError."""
    until: list[int] = []
    labels: list[str] = []
    without: list[str] = []
    for name, value in pairs:
        if name == "until":
            try:
                until.append(humanize.parse_moment(value))
            except ValueError as error:
                raise UsageError(f"--filter until={value}", str(error)) from None
        elif name in ("label", "label!"):
            (labels if name == "label" else without).append(value)
        else:
            from pyrun.runtime.oci.nearest import did_you_mean

            hint = did_you_mean(name, FILTERS) or "until=24h, label=NAME or label!=NAME"
            raise UsageError(f"--filter {name}={value}", f"unknown filter '{name}'", hint=hint)
    return Filter(min(until) if until else None, tuple(labels), tuple(without))


def _has(labels: Mapping[str, str], text: str) -> bool:
    name, equals, value = text.partition("=")
    return name in labels and (not equals or labels[name] == value)


def moment(text: str) -> int:
    """An RFC 3339 time in nanoseconds; one that cannot be read is as old as can be."""
    try:
        return humanize.parse_rfc3339(text)
    except ValueError:
        return 0


def containers(paths: Paths, chosen: Filter = EVERYTHING, link: WorkerLink | None = None) -> Freed:
    """Removes every container that does not run and is not about to; lines are their ids."""
    from pyrun.runtime.engine.containers import CREATED, DEAD, EXITED, ContainerStore
    from pyrun.runtime.engine.listing import disk_usage
    from pyrun.runtime.engine.remove import remove

    store = ContainerStore(paths)
    lines, freed, problems = [], 0, []
    for container, state in store.all()[0]:
        if not chosen.fits(moment(container.created), dict(container.labels)):
            continue
        if store.settle(container.id, state).status not in (CREATED, EXITED, DEAD):
            continue
        written = disk_usage(f"{paths.container(container.id)}/upper")
        try:
            remove(paths, container.id, link=link)
        except (Conflict, NotFound):
            continue  # it was started, or removed, in this moment
        except PyrunError as error:
            problems.append(error)
            continue
        lines.append(container.id)
        freed += written
    return Freed(tuple(lines), freed, tuple(problems))


def images(paths: Paths, chosen: Filter = EVERYTHING, *, unused: bool = False) -> Freed:
    """Removes images without a name, with `unused` all that no container was made from; docker's lines."""
    from pyrun.rootfs.store import ImageStore

    def kept(image: Image) -> bool:
        return not chosen.fits(moment(image.created), image.config.labels)

    done = ImageStore(paths).prune(all=unused, keep=kept, in_use=image_users(paths))
    return Freed(done.lines, done.bytes)


def image_users(paths: Paths) -> Callable[[str], list[str]]:
    """A function that gives the names of the containers, running or not, that were made from an image."""
    from pyrun.runtime.engine.containers import ContainerStore

    def in_use(image_id: str) -> list[str]:
        found, _ = ContainerStore(paths).all()
        return [container.name for container, _ in found if container.image_id == image_id]

    return in_use


def volumes(paths: Paths, chosen: Filter = EVERYTHING, *, named: bool = False) -> Freed:
    """Removes anonymous volumes that no container has, with `named` the others too; lines are their names."""
    from pyrun.rootfs.volumes import VolumeStore
    from pyrun.runtime.engine.listing import disk_usage

    store, in_use = VolumeStore(paths), volume_users(paths)
    lines, freed = [], 0
    for volume in store.list():
        if not (volume.anonymous or named) or not chosen.fits(moment(volume.created), volume.labels):
            continue
        if in_use(volume.name):
            continue
        used = disk_usage(volume.mountpoint)
        try:
            store.remove(volume.name, force=True, in_use=in_use)
        except Conflict:
            continue  # a container was made with it in this moment
        lines.append(volume.name)
        freed += used
    return Freed(tuple(lines), freed)


def volume_users(paths: Paths) -> Callable[[str], list[str]]:
    """A function that gives the names of the containers, running or not, that have a volume."""
    from pyrun.runtime.engine.containers import ContainerStore

    def in_use(name: str) -> list[str]:
        found, _ = ContainerStore(paths).all()
        return [
            container.name
            for container, _ in found
            if any(mount.type == "volume" and mount.name == name for mount in container.mounts)
        ]

    return in_use


def build_cache(paths: Paths, chosen: Filter = EVERYTHING, *, unused: bool = True) -> Freed:
    """Removes what builds left to be used again: layers that no image has, with `unused` what images have too, and
    cache mounts, and without a filter the state of failed steps. A filter's `until` is about the last use; nothing here
    has labels."""
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.engine.build import cache, cache_mounts
    from pyrun.runtime.engine.disk_usage import own_size

    if chosen.labels:
        return Freed()
    oldest = chosen.until_ns if chosen.until_ns is not None else time.time_ns() + 1
    store = ImageStore(paths)
    in_images = {chain_id for image in store.list() for chain_id in image.chain_ids}

    def goes(keep: Keep) -> bool:
        return keep.used_at * 10**9 < oldest and (unused or not in_images.issuperset(keep.layers))

    doomed = [keep for keep in cache.records(store) if goes(keep)]
    records = [(keep.name.partition("-")[2][:25] or keep.name, own_size(store, keep), keep.used_at) for keep in doomed]
    freed = _failed_steps(paths, store) if unused and chosen == EVERYTHING else 0
    freed += store.drop_kept([keep.name for keep in doomed]).bytes if doomed else 0
    if unused:
        gone = cache_mounts.prune(paths, lambda mount: mount.used_at * 10**9 < oldest)
        records += [(mount.name[:25], mount.size, mount.used_at) for mount in gone]
        freed += sum(mount.size for mount in gone)
    return Freed(tuple(name for name, _, _ in records), freed, records=tuple(records))


def _failed_steps(paths: Paths, store: ImageStore) -> int:
    """Forgets what failed steps left; the bytes of that, and of the layers that only they stood on."""
    from pyrun.runtime.engine.build import debug
    from pyrun.runtime.engine.disk_usage import failed_size

    before = failed_size(paths) + store.usage().kept_size
    debug.prune_failed(paths)
    return max(0, before - failed_size(paths) - store.usage().kept_size)
