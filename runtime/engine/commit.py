# SPDX-License-Identifier: Apache-2.0
"""commit(): an image of a container: its image's layers, one more with what it wrote, and its own config."""

from __future__ import annotations

import contextlib
import signal

from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.create import now
from pyrun.runtime.engine.written import written
from pyrun.runtime.errors import Conflict, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pyrun.rootfs.changeset import NewLayer
    from pyrun.rootfs.image import Image
    from pyrun.rootfs.layout import Ingest
    from pyrun.runtime.engine.written import Written
    from pyrun.runtime.paths import Paths

    Config = dict[str, Any]

# of the base image's config: what belongs to the image and not to its last build
KEPT = ("architecture", "variant", "os", "os.version", "os.features", "author")


def commit(
    paths: Paths,
    container_id: str,
    reference: str = "",
    *,
    author: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    pause: bool = True,
) -> Image:
    """Makes an image of a container, running or stopped, and gives it.

    Args:
        reference: the image's name; "" for none.
        author, message: for the image and its history.
        changes: Dockerfile instructions for its config, such as 'CMD ["python3"]' (rootfs/changes.py).
        pause: a running container is frozen while its files are read, so that they fit together.

    Mount points and what is in volumes is not in it. Raises UsageError and Conflict before anything is done, NotFound,
    ArchiveError for a file that no layer can hold, OSError.
    """
    from pyrun.rootfs import changes as instructions
    from pyrun.rootfs import refs
    from pyrun.rootfs.disk import writing
    from pyrun.rootfs.store import ImageStore

    name = refs.normalise(reference) if reference else None
    if name is not None and name.digest:
        raise UsageError(f"cannot commit as '{reference}'", "a new image has no digest yet")
    images = ImageStore(paths)
    instructions.apply({}, changes)  # so that a mistake is told before the container is frozen
    with writing("commit"), images.ingest() as ingest:
        with images.hold():
            found = written(paths, container_id, images)
            ingest.keep_layers(found.image.chain_ids)
            with _ending_in_order():
                layer = _pack(paths, found, ingest, pause=pause)
        config = instructions.apply(container_config(found.container, found.image), changes)
        document = _document(found, layer, config, author, message)
        manifest = _manifest(found.image, layer, ingest, ingest.add_json(document))
        return images.add(ingest, ingest.add_json(manifest), [str(name)] if name else [])


def _pack(paths: Paths, found: Written, ingest: Ingest, *, pause: bool) -> NewLayer:
    from pyrun.rootfs import changeset
    from pyrun.runtime.engine import stop

    frozen = False
    if pause and c.ContainerStore(paths).load_state(found.container.id).status == c.RUNNING:
        try:
            stop.pause(paths, found.container.id)
            frozen = True
        except Conflict:
            pass  # it ended in this moment, or somebody else froze it
    try:
        return changeset.pack(found.upper, found.lowers, ingest, ignore=found.stubs)
    finally:
        if frozen:
            stop.thaw_if_frozen(c.ContainerStore(paths), found.container.id)


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP as an exception: a frozen container must be thawed first.

    After SIGKILL it is shown as paused, and `unpause` thaws it.
    """

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signals = (signal.SIGTERM, signal.SIGHUP)
    try:
        before = [signal.signal(number, end) for number in signals]
    except ValueError:  # only the main thread may; in another one it is for the program to decide
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def container_config(container: c.Container, image: Image) -> Config:
    """The config of an image that starts as this container did, in docker's field names."""
    base = dict(image.raw_config.get("config") or {})
    volumes = [*container.volumes, *(mount.target for mount in container.mounts if mount.anonymous)]
    workdir = container.workdir if container.workdir != "/" else image.config.working_dir
    stop_signal = container.stop_signal if container.stop_signal != "SIGTERM" else image.config.stop_signal
    own: Config = {
        "User": container.user,
        "ExposedPorts": {port: {} for port in container.exposed_ports},
        "Env": list(container.env),
        "Entrypoint": list(container.entrypoint),
        "Cmd": list(container.cmd),
        "Volumes": {path: {} for path in volumes},
        "WorkingDir": workdir,
        "Labels": dict(container.labels),
        "StopSignal": stop_signal,
        "Healthcheck": base.get("Healthcheck"),
        "Shell": base.get("Shell"),
    }
    return {key: value for key, value in own.items() if value}


def _document(found: Written, layer: NewLayer, config: Config, author: str, message: str) -> Config:
    """The image config. A container that wrote nothing adds no layer, but a line of history."""
    base = found.image.raw_config
    created = now()
    entry = {
        "created": created,
        "created_by": " ".join((found.container.path, *found.container.args)),
        **({"author": author} if author else {}),
        **({"comment": message} if message else {}),
        **({} if layer.entries else {"empty_layer": True}),
    }
    return {
        **{key: base[key] for key in KEPT if base.get(key)},
        **({"author": author} if author else {}),
        "created": created,
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": [*found.image.diff_ids, *([layer.diff_id] if layer.entries else [])],
        },
        "history": [*_history(found.image), entry],
    }


def _history(image: Image) -> Iterator[Any]:
    """The base's history as it is; one without any gets a line for each layer, or the new line would be taken for the
    first layer's."""
    entries = image.raw_config.get("history") or []
    yield from entries
    told = sum(not (isinstance(entry, dict) and entry.get("empty_layer")) for entry in entries)
    for _ in image.layers[told:]:
        yield {"created": image.created, "comment": "no history"}


def _manifest(image: Image, layer: NewLayer, ingest: Ingest, config_digest: str) -> Config:
    """An OCI manifest: docker's media types of the base's layers become OCI's of the same content."""
    from pyrun.rootfs import media

    layers = [
        {"mediaType": media.LAYER_OF[media.LAYERS[item.media_type]], "digest": item.digest, "size": item.size}
        for item in image.layers
    ]
    if layer.entries:
        layers.append({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size})
    return {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": config_digest, "size": ingest.sizes[config_digest]},
        "layers": layers,
    }
