# SPDX-License-Identifier: Apache-2.0
"""create(): options and an image become a container on disk. Nothing is started; what can be refused is, here."""

from __future__ import annotations

import os
import time

from pyrun.cgroups import mount as cgroup_mount
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.options import MountOption, RunOptions
from pyrun.runtime.errors import NotFound, PyrunError, SpecError, UsageError
from pyrun.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrun.rootfs.image import Image, ImageConfig
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.engine.pulling import ProgressMaker
    from pyrun.runtime.paths import Paths


#: directories at the top that the kernel fills, or we do from what it has: no VOLUME of an image goes there
KERNELS = ("proc", "sys", "dev")


class ImageMissing(NotFound):
    """The image is not here, or not for the platform that was asked for: what --pull missing pulls."""


def now() -> str:
    """The time as RFC 3339, UTC, with nanoseconds: what state files carry."""
    ns = time.time_ns()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(ns // 10**9))}.{ns % 10**9:09d}Z"


def create(paths: Paths, options: RunOptions, *, progress: ProgressMaker | None = None) -> c.Container:
    """Makes the container: its record, its name, its directory, its volumes. Pulls the image as options.pull says.

    Raises NotFound for the image, Conflict for the name, UsageError and Unsupported for options that cannot be had;
    nothing is left behind then, and neither when this process is killed meanwhile (recover()).
    """

    def once(options: RunOptions) -> c.Container:
        store = c.ContainerStore(paths)
        with store.busy():
            container = make(paths, options)
            store.update_state(container.id, unfinished=False)
        return container

    return with_image(paths, options, once, progress)


def with_image(
    paths: Paths, options: RunOptions, act: Callable[[RunOptions], c.Container], progress: ProgressMaker | None
) -> c.Container:
    """act(options), with the image pulled before it where options.pull says so, or after it said ImageMissing.

    So a start whose image is here looks it up once, and no lock is held while a registry is asked.
    """
    if options.pull != "always":
        try:
            return act(options)
        except ImageMissing:
            pass
    from pyrun.runtime.engine.pulling import pulled

    return act(pulled(paths, options, progress))


def make(paths: Paths, options: RunOptions) -> c.Container:
    """create(), for a caller that holds store.busy() and has more to do before the container is not `unfinished`."""
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.engine import check

    check.system(paths, options)  # before anything is looked up: without root not even the images can be
    images = ImageStore(paths)
    with images.hold():  # nobody removes the image between our finding it and our saying that we use it
        return make_of(paths, options, find(images, options), images)


def find(images: ImageStore, options: RunOptions) -> Image:
    """The image in the store. Raises ImageMissing."""
    from pyrun.rootfs import media

    try:
        image = images.resolve(options.image)
    except NotFound as error:
        raise ImageMissing(error.what, error.why, hint=error.hint) from None
    if options.platform or image.architecture != media.host_platform()[1]:
        from pyrun.runtime.engine import pulling

        if not pulling.fits(image, options.platform):
            raise ImageMissing(f"image '{options.image}'", f"it is for {image.platform}, not for {options.platform}")
        if not options.platform:
            pulling.warn_of_platform(image)
    return image


def make_of(paths: Paths, options: RunOptions, image: Image, images: ImageStore) -> c.Container:
    """make() from an image that is held."""
    from pyrun.rootfs.upper import take_root
    from pyrun.runtime.engine import check

    check.options(paths, options)
    layers = images.unpacked(image)  # here, so that a damaged or too big image is found before there is a container
    container = describe(paths, options, image)
    if image.config.volumes:
        asked = {mount.target for mount in options.mounts}
        refuse_linked(options.image, [point for point in container.mounts if point.target not in asked], layers)
    store = c.ContainerStore(paths)
    with Undo() as undo:
        container = store.create(container, c.State(unfinished=True))
        undo.on_failure(store.remove, container.id)
        directory = paths.container(container.id)
        for name in ("upper", "work", "rootfs", "log"):
            os.mkdir(f"{directory}/{name}", 0o755 if name in ("upper", "rootfs") else 0o700)
            undo.on_failure(_remove_directory, f"{directory}/{name}")
        take_root(f"{directory}/upper", layers)
        new = make_volumes(paths, container)
        undo.on_failure(remove_volumes, paths, new)
        if options.cidfile:
            write_cidfile(options.cidfile, container.id)
    return container


def describe(paths: Paths, options: RunOptions, image: Image) -> c.Container:
    """The record of a container that is to be; touches nothing. The name may still be "" (the store chooses one)."""
    config = image.config
    container_id = c.new_id()
    argv = command_line(options, config)
    return c.Container(
        id=container_id,
        name=options.name,
        created=now(),
        image_id=image.id,
        image_ref=options.image,
        path=argv[0],
        args=argv[1:],
        options=options,
        mounts=mount_points(paths, container_id, options, config),
        entrypoint=config.entrypoint if options.entrypoint is None else options.entrypoint,
        cmd=options.command or config.cmd,
        env=merged_env(options, config),
        workdir=os.path.normpath(os.path.join("/", options.workdir or config.working_dir or "/")),
        user=options.user or config.user,
        hostname=hostname(options, container_id),
        labels=tuple({**dict(config.labels), **dict(options.labels)}.items()),
        exposed_ports=tuple(dict.fromkeys((*config.exposed_ports, *options.expose))),
        volumes=config.volumes,
        stop_signal=options.stop_signal or config.stop_signal or "SIGTERM",
        stop_timeout=10 if options.stop_timeout is None else options.stop_timeout,
        cgroup_path=cgroup_mount.container_path(container_id, instance=paths.instance, parent=options.cgroup_parent),
        log_path=f"{paths.container(container_id)}/log",
    )


def command_line(options: RunOptions, config: ImageConfig) -> tuple[str, ...]:
    """ENTRYPOINT and CMD as docker joins them: an --entrypoint drops the image's CMD too.

    Raises UsageError when nothing is left to run.
    """
    if options.entrypoint is None:
        argv = (*config.entrypoint, *(options.command or config.cmd))
    else:
        argv = (*options.entrypoint, *options.command)
    if not argv or not argv[0]:
        raise UsageError(
            "no command", "neither the image nor the command line says what to run", hint="pyrun run IMAGE COMMAND"
        )
    return argv


def merged_env(options: RunOptions, config: ImageConfig) -> tuple[str, ...]:
    """The image's variables with the user's over them, each name once, in order of first mention."""
    merged = dict(item.partition("=")[::2] for item in config.env)
    merged.update(options.env)
    return tuple(f"{name}={value}" for name, value in merged.items() if name not in options.unset_env)


def hostname(options: RunOptions, container_id: str) -> str:
    """--hostname, else the short id; the host's own where its UTS or network namespace is shared."""
    if options.hostname:
        return options.hostname
    if options.uts == "host" or options.network == "host":
        return os.uname().nodename
    return container_id[: c.SHORT_ID]


# ---- mounts and volumes ----------------------------------------------------------------------------------------------


def mount_points(paths: Paths, container_id: str, options: RunOptions, config: ImageConfig) -> tuple[c.MountPoint, ...]:
    """The user's mounts, then anonymous volumes for the image's VOLUMEs that none of them covers."""
    points = [mount_point(paths, option) for option in options.mounts]
    points += list(volumes_from(paths, options, {point.target for point in points}))
    taken = {point.target for point in points}
    wanted = dict.fromkeys(image_volume(options.image, target) for target in config.volumes)
    points += [mount_point(paths, MountOption("volume", "", target)) for target in wanted if target not in taken]
    for target in wanted:
        if target not in taken:
            refuse_covering(options.image, target, target)
    seen: set[str] = set()
    for point in points:
        if point.target in seen:
            raise UsageError(f"mount on {point.target}", "two mounts have this target", hint="give each one of its own")
        seen.add(point.target)
    return tuple(points)


def image_volume(image: str, target: str) -> str:
    """A VOLUME of the image as the path it means: absolute, without "..". Raises SpecError for what is no path."""
    if "\0" in target:
        raise SpecError(f"image '{image}'", f"its volume {target!r} is no path")
    return "/" + os.path.normpath("/" + target).strip("/")


def refuse_covering(image: str, target: str, place: str) -> None:
    """Raises SpecError for a VOLUME of the image whose `place` is where an empty directory would disarm the container:
    without procfs there the masks and read-only parts of /proc are those of files that the image's author wrote.

    runc refuses what is inside /proc, docker "/"; what a user mounts there is the user's own affair.
    """
    if place != "/" and place.split("/")[1] not in KERNELS:
        return
    where = target if target == place else f"{target} (which is {place})"
    raise SpecError(f"image '{image}'", f"its volume {where} would cover {place}", hint="the image wants to do harm")


def refuse_linked(image: str, points: Sequence[c.MountPoint], layers: Sequence[str]) -> None:
    """refuse_covering() of what the image's volumes are once its symlinks are followed. layers: lowest first."""
    from pyrun.rootfs.layered import Stack

    targets = [point.target for point in points if point.type == "volume" and point.anonymous]
    if not targets:
        return
    with Stack(list(reversed(layers))) as root:
        for target in targets:
            try:
                found = root.resolve(tuple(os.fsencode(target).split(b"/")))
            except OSError as error:
                why = f"its volume {target}: {(error.strerror or '').lower()}"
                raise SpecError(f"image '{image}'", why) from None
            refuse_covering(image, target, "/" + os.fsdecode(b"/".join(found)))


def mount_point(paths: Paths, option: MountOption) -> c.MountPoint:
    """One mount with its source found: a path of the host, a volume's directory, or a tmpfs."""
    if option.type == "tmpfs":
        return c.MountPoint("tmpfs", "", option.target, readonly=option.readonly, words=tmpfs_words(option))
    words = bind_words(option)
    if option.type == "bind":
        return c.MountPoint(
            "bind", option.source, option.target, mode=option.selinux, readonly=option.readonly,
            propagation=option.propagation or "rprivate", words=words,
        )  # fmt: skip
    name = option.source or os.urandom(32).hex()
    source = f"{paths.data}/volumes/{name}/_data"
    if option.subpath:
        source = f"{source}/{option.subpath}"
    return c.MountPoint(
        "volume", source, option.target, name=name, driver=option.driver or "local", mode=option.selinux or "z",
        readonly=option.readonly, propagation=option.propagation, anonymous=not option.source, words=words,
        nocopy=option.nocopy or bool(option.subpath),
    )  # fmt: skip


def bind_words(option: MountOption) -> tuple[str, ...]:
    """OCI mount options of a bind. A read-only bind is recursively read-only, as docker's since 25 (kernel 5.12)."""
    words = ["bind" if option.recursive == "disabled" else "rbind", option.propagation or "rprivate"]
    if option.readonly:
        words.append("ro" if option.recursive in ("writable", "disabled") else "rro")
    return tuple(words)


def tmpfs_words(option: MountOption) -> tuple[str, ...]:
    """OCI mount options of --tmpfs: docker's noexec, nosuid, nodev unless the user says otherwise."""
    words = [word for word in ("noexec", "nosuid", "nodev") if word[2:] not in option.tmpfs_options]
    words += [f"mode={option.tmpfs_mode:o}"]
    if option.tmpfs_size is not None:
        words.append(f"size={option.tmpfs_size}")
    words += [word for word in option.tmpfs_options if word not in words]
    return (*words, "ro") if option.readonly else tuple(words)


def volumes_from(paths: Paths, options: RunOptions, taken: set[str]) -> list[c.MountPoint]:
    """The mounts of other containers (--volumes-from NAME[:ro|:rw]), tmpfs left out."""
    store = c.ContainerStore(paths)
    found: list[c.MountPoint] = []
    for text in options.volumes_from:
        name, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw"):
            raise UsageError(f"--volumes-from {text}", f"unknown mode '{mode}'", hint="ro or rw")
        for point in store.load(store.lookup(name)).mounts:
            if point.type != "tmpfs" and point.target not in taken:
                taken.add(point.target)
                readonly = mode == "ro" or point.readonly
                words = (*(word for word in point.words if word not in ("ro", "rro")), *(("rro",) if readonly else ()))
                found.append(point.replace(anonymous=False, nocopy=True, readonly=readonly, words=words))
    return found


def make_volumes(paths: Paths, container: c.Container) -> list[str]:
    """Makes the volumes that are not there yet; gives the names of the new ones."""
    if not any(point.type == "volume" for point in container.mounts):
        return []
    from pyrun.rootfs.volumes import VolumeStore

    volumes = VolumeStore(paths)
    labels = {m.source: dict(m.labels) for m in container.options.mounts if m.type == "volume"}
    known = {volume.name for volume in volumes.list()}
    new: list[str] = []
    try:
        for point in container.mounts:
            if point.type == "volume" and point.name not in known:
                new.append(point.name)  # before: the worker may be interrupted between any two steps
                volumes.create(point.name, labels.get(point.name, {}), anonymous=point.anonymous)
    except BaseException:
        remove_volumes(paths, new)
        raise
    return new


def remove_volumes(paths: Paths, names: list[str]) -> None:
    """Takes volumes back that this create has just made."""
    if not names:
        return
    from pyrun.rootfs.volumes import VolumeStore

    volumes = VolumeStore(paths)
    for name in names:
        volumes.remove(name, force=True)


def write_cidfile(path: str, container_id: str) -> None:
    """--cidfile. Raises UsageError when the file exists: it may name a running container."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise UsageError(f"--cidfile {path}", "the file exists", hint="remove it, or name another") from None
    except OSError as error:
        raise PyrunError(f"--cidfile {path}", (error.strerror or "").lower()) from None
    try:
        os.write(fd, container_id.encode("ascii"))
    finally:
        os.close(fd)


def _remove_directory(path: str) -> None:
    from pyrun.rootfs.inroot import remove_path

    remove_path(path)
