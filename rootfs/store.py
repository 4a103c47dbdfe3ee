# SPDX-License-Identifier: Apache-2.0
"""ImageStore: every image of this data root. Finding, naming, removing; loading and saving are in siblings.

    store = ImageStore(paths)
    with store.hold():                        # nothing is removed while this runs
        image = store.resolve("flask-app")    # name, name@digest, id, beginning of an id
        lowers = store.unpacked(image)        # layer directories, lowest first
        …write down the container that uses them…

An image's id is the digest of its config, as docker shows it. Each name is one descriptor in index.json; an image whose
last name went to another stays as a descriptor without a name (docker's <none>), and so does one that containers still
use.
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.runtime.events import step

from . import collect, media, refs
from . import image as images
from .disk import writing
from .layers import Layers
from .layout import Ingest, Layout, load_json
from .limits import DEFAULT_LIMITS, ArchiveError, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, BinaryIO

    from pyrun.runtime.files import Lock
    from pyrun.runtime.paths import Paths

    from .image import Image, Layer
    from .layout import Descriptor, Descriptors
    from .stream import Readable

    Names = list[str]  # inside the class, `list` is its method
    Images = list[Image]


class ImageStore:
    """The images of a data root. Creating one touches no disk; reading needs no lock and no write permission."""

    def __init__(self, paths: Paths, limits: Limits = DEFAULT_LIMITS) -> None:
        self.layout = Layout(f"{paths.data}/images")
        self.layers = Layers(f"{paths.data}/layers")
        self.limits = limits

    # Finding ------------------------------------------------------------------------------------------------------

    def list(self) -> Images:
        """Every image, newest first, but for those with a damaged manifest or config: resolve() by name tells why."""
        found = []
        for group in self._groups(self.layout.index()).values():
            try:
                found.append(self._image(group))
            except PyrunError:
                continue
        return sorted(found, key=lambda image: image.created, reverse=True)

    def resolve(self, text: str) -> Image:
        """The image that `text` names: a name, name@digest, an id or the beginning of one.

        Raises NotFound with the nearest names as hint, Conflict when the beginning fits several, UsageError,
        ArchiveError.
        """
        descriptors = self.layout.index()
        return self._image(self._find(text, descriptors))

    def unpacked(self, image: Image) -> tuple[str, ...]:
        """The directories of the image's layers, lowest first, unpacking those that are missing. Call it inside hold().

        Raises ArchiveError for a damaged layer, NotFound when the blob is gone, OSError.
        """
        with writing(f"unpack image {refs.short_id(image.id)}"):
            self.layers.ensure(image.layers, self._open_blob, self.limits)
        return tuple(self.layers.fs(chain_id) for chain_id in image.chain_ids)

    def hold(self) -> Lock:
        """A `with` block during which no layer is removed: from resolve() until the container that uses it is written
        down.

        Short, please: `rmi` waits for it. Never call remove() inside it.
        """
        return self.layers.hold()

    # Changing -----------------------------------------------------------------------------------------------------

    def tag(self, source: str, target: str) -> None:
        """Gives the image `source` the name `target`; an image that had it keeps its other names, or none."""
        name = refs.normalise(target)
        if name.digest:
            raise UsageError(f"cannot tag as '{target}'", "a tag has no digest")
        with writing(f"tag {source}"), self.layout.lock(), step("rootfs", f"tag {source} {name.familiar}"):
            self._recover()
            descriptors = self.layout.index()
            chosen = self._find(source, descriptors)[0]
            self.layout.write_index(renamed(descriptors, str(name), chosen))

    def remove(
        self,
        text: str,
        *,
        force: bool = False,
        in_use: Callable[[str], Names] = lambda image_id: [],
    ) -> Names:
        """Takes a name off an image, and removes the image with its last name; what docker's `rmi` prints, line by
        line.

        Args:
            text: a name removes that name; an id removes the image, if it has names in one repository only.
            force: also when containers use the image (it then stays without a name) or it has names in several
            repositories.
            in_use: image id -> names or ids of the containers, running or not, that use it.

        Blobs and layers that nothing else needs go too. Raises NotFound, Conflict (nothing is changed then), OSError.
        """
        with (
            writing(f"remove image {text}"),
            self.layers.lock(blocking=True),
            self.layout.lock(),
            step("rootfs", "rmi"),
        ):
            self._recover()
            descriptors = self.layout.index()
            group = self._find(text, descriptors)
            image_id = self._config_digest(group[0])
            users = in_use(image_id)
            doomed = self._doomed(text, group)
            last = len(doomed) == len(group)
            _check_removal(text, image_id, group, doomed, users, force)
            lines = [f"Untagged: {refs.familiar(_name(item))}" for item in doomed if _name(item)]
            left = [item for item in descriptors if not any(item is gone for gone in doomed)]
            if last and users:
                left.append(_nameless(group[0]))
            self.layout.mark_garbage()
            self.layout.write_index(left)
            if last and not users:
                lines.append(f"Deleted: {image_id}")
            gone = self._collect(layers_locked=True)
            return lines + [f"Deleted: {chain_id}" for chain_id in gone]

    def add(
        self,
        ingest: Ingest,
        manifest_digest: str,
        names: Sequence[str] = (),
        *,
        repo_digests: Sequence[str] = (),
        exact: bool = True,
    ) -> Image:
        """Makes an image whose blobs are all in `ingest` part of the store: verifies, unpacks, then shows it under
        `names`.

        names: full references. `exact=False`: an image with the same id that is there already is named instead. Raises
        SpecError, ArchiveError, OSError; then the store is as it was.
        """
        image = images.parse(manifest_digest, *self._documents(ingest, manifest_digest))
        self._check_blobs(ingest, image)
        ingest.keep_layers(image.chain_ids)
        unpacked = self.layers.ensure(image.layers, lambda layer: open(ingest.blob(layer.digest), "rb"), self.limits)
        if not unpacked:
            ingest.sync()
        with self.layout.lock(), step("rootfs", f"add image {refs.short_id(image.id)} {' '.join(names)}"):
            self._recover()
            self.layout.create()
            descriptors = self.layout.index()
            descriptor = self._existing(descriptors, image.id) if not exact else None
            if descriptor is None:
                ingest.publish([manifest_digest, image.id, *(layer.digest for layer in image.layers)])
                descriptor = {
                    "mediaType": image.raw_manifest.get("mediaType") or media.OCI_MANIFEST,
                    "digest": manifest_digest,
                    "size": ingest.sizes[manifest_digest],
                    "annotations": {media.CONFIG_DIGEST: image.id},
                }
                if repo_digests:
                    descriptor["annotations"][media.REPO_DIGESTS] = " ".join(repo_digests)
            if not names and not any(item["digest"] == descriptor["digest"] for item in descriptors):
                descriptors.append(descriptor)
            for name in names:
                descriptors = renamed(descriptors, name, descriptor)
            self.layout.write_index(descriptors)
            group = [item for item in descriptors if item["digest"] == descriptor["digest"]]
            return self._image(group)

    def load(self, source: str | Readable) -> Names:
        """Adds the images of an archive; see loading.load()."""
        from . import loading

        with writing("load images"):
            return loading.load(self, source)

    def save(self, names: Sequence[str], target: BinaryIO) -> None:
        """Writes images as an archive; see saving.save()."""
        from . import saving

        saving.save(self, names, target)

    def import_rootfs(
        self, source: str | Readable, reference: str = "", changes: Sequence[str] = (), message: str = ""
    ) -> Image:
        """Makes an image of a root file system's tar; see importing.import_rootfs()."""
        from . import importing

        with writing("import image"):
            return importing.import_rootfs(self, source, reference, changes, message)

    def ingest(self) -> Ingest:
        """A place for new blobs, for `with`. Creates the store if there is none yet."""
        with self.layout.lock():
            self.layout.create()
        return Ingest(self.layout)

    def inspect(self, image: Image) -> dict[str, Any]:
        """The image as `image inspect` prints it, in docker's field names."""
        from . import inspection

        return inspection.inspect(self, image)

    def history(self, image: Image) -> Sequence[Mapping[str, Any]]:
        """The rows of `history`, newest first: see inspection.history()."""
        from . import inspection

        return inspection.history(self, image)

    # Inside -------------------------------------------------------------------------------------------------------

    def _groups(self, descriptors: Descriptors) -> dict[str, Descriptors]:
        """The image descriptors by image id; those whose manifest cannot be read are left out."""
        groups: dict[str, Descriptors] = {}
        for descriptor in descriptors:
            if descriptor.get("mediaType") not in media.INDEXES:
                try:
                    groups.setdefault(self._config_digest(descriptor), []).append(descriptor)
                except PyrunError:
                    continue
        return groups

    def _config_digest(self, descriptor: Descriptor) -> str:
        known = _annotation(descriptor, media.CONFIG_DIGEST)
        if known:
            return known
        return images.manifest_blobs(self.layout.read_json(descriptor["digest"], self.limits))[0][0]

    def _image(self, group: Descriptors) -> Image:
        """The Image of descriptors that all stand for it."""
        digest = group[0]["digest"]
        manifest = self.layout.read_json(digest, self.limits)
        config = self.layout.read_json(images.manifest_blobs(manifest)[0][0], self.limits)
        image = images.parse(digest, manifest, config)
        sizes = [self.layers.size(layer.chain_id) for layer in image.layers]
        size = sum(layer.size if known is None else known for layer, known in zip(image.layers, sizes, strict=True))
        names = sorted({refs.familiar(_name(item)) for item in group if _name(item)})
        pulled = {text for item in group for text in _annotation(item, media.REPO_DIGESTS).split()}
        return image.replace(names=tuple(names), size=size, repo_digests=tuple(sorted(pulled)))

    def _find(self, text: str, descriptors: Descriptors) -> Descriptors:
        """The descriptors of the image that `text` names, the one that was named first."""
        prefix = refs.id_prefix(text)
        if not (len(prefix) == 64 or text.startswith("sha256:")):
            named = _by_name(text, descriptors, strict=not prefix)
            if named is not None:
                same = self._groups(descriptors).get(self._config_digest(named), [named])
                return [named, *(item for item in same if item is not named)]
        if prefix:
            groups = {key: group for key, group in self._groups(descriptors).items() if key[7:].startswith(prefix)}
            if len(groups) == 1:
                return next(iter(groups.values()))
            if groups:
                raise Conflict(
                    f"image id '{text}' is ambiguous", f"{len(groups)} images begin with it", hint="add more digits"
                )
        raise _no_such_image(text, descriptors)

    def _doomed(self, text: str, group: Descriptors) -> Descriptors:
        """The descriptors that removing `text` removes: the named one, or all of them for an id."""
        named = None
        if not (text.startswith("sha256:") or refs.is_hex_id(text)):
            named = _by_name(text, group, strict=False)
        return [named] if named is not None else group

    def _existing(self, descriptors: Descriptors, image_id: str) -> Descriptor | None:
        """The descriptor of an image that is here already, if it is whole: loading a damaged one again repairs it."""
        group = self._groups(descriptors).get(image_id)
        try:
            layers = self._image(group).layers if group else ()
            sizes = [os.stat(self.layout.blob(layer.digest)).st_size for layer in layers]
        except (PyrunError, FileNotFoundError):
            return None
        return group[0] if group and sizes == [layer.size for layer in layers] else None

    def _documents(self, ingest: Ingest, manifest_digest: str) -> tuple[Any, Any]:
        manifest = load_json(ingest.read(manifest_digest, self.limits), manifest_digest, self.limits)
        config_digest = images.manifest_blobs(manifest)[0][0]
        if not ingest.pin(config_digest):
            raise ArchiveError(f"image {manifest_digest}", f"its config {config_digest} is missing")
        return manifest, load_json(ingest.read(config_digest, self.limits), config_digest, self.limits)

    def _check_blobs(self, ingest: Ingest, image: Image) -> None:
        for layer in image.layers:
            if not ingest.pin(layer.digest):
                raise ArchiveError(f"image {refs.short_id(image.id)}", f"its layer {layer.digest} is missing")
            if ingest.sizes[layer.digest] != layer.size:
                raise ArchiveError(
                    f"layer {layer.digest}", f"{ingest.sizes[layer.digest]} bytes, the manifest says {layer.size}"
                )

    def _open_blob(self, layer: Layer) -> BinaryIO:
        try:
            return open(self.layout.blob(layer.digest), "rb")
        except FileNotFoundError:
            raise NotFound(
                f"image layer {layer.digest}", "it is missing from the store", hint="load or pull the image again"
            ) from None

    def _recover(self) -> None:
        """Finishes what dead processes began; the layout's lock is held."""
        if collect.needed(self.layout):
            self._collect(layers_locked=False)
        self.layout.recover()
        self.layers.recover()

    def _collect(self, *, layers_locked: bool) -> Names:
        return collect.collect(self.layout, self.layers, self._used, layers_locked=layers_locked)

    def _used(self, descriptor: Descriptor) -> tuple[Iterable[str], Iterable[str]]:
        """The blobs and the chain ids that a descriptor keeps alive. Raises PyrunError."""
        manifest = self.layout.read_json(descriptor["digest"], self.limits)
        config = images.manifest_blobs(manifest)[0][0]
        image = images.parse(descriptor["digest"], manifest, self.layout.read_json(config, self.limits))
        return (descriptor["digest"], config, *(layer.digest for layer in image.layers)), image.chain_ids


def renamed(descriptors: Descriptors, name: str, target: Descriptor) -> Descriptors:
    """The index with the full reference `name` on `target`'s manifest, and on nothing else.

    A manifest that loses its last name this way stays, nameless; a nameless descriptor of the target makes room.
    """
    kept = [item for item in descriptors if _name(item) != name]
    alive = {item["digest"] for item in kept}
    kept += [_nameless(item) for item in descriptors if _name(item) == name and item["digest"] not in alive]
    kept = [item for item in kept if item["digest"] != target["digest"] or _name(item)]
    notes = {key: value for key, value in (target.get("annotations") or {}).items() if key in media.OURS}
    notes |= {media.REF_NAME: name, media.CONTAINERD_NAME: name}
    return [*kept, {**target, "annotations": notes}]


def _nameless(descriptor: Descriptor) -> Descriptor:
    """The descriptor of an image that is there without a name."""
    notes = {
        k: v
        for k, v in (descriptor.get("annotations") or {}).items()
        if k not in (media.REF_NAME, media.CONTAINERD_NAME)
    }
    plain = {key: value for key, value in descriptor.items() if key != "annotations"}
    return {**plain, "annotations": notes} if notes else plain


def _annotation(descriptor: Descriptor, key: str) -> str:
    return str((descriptor.get("annotations") or {}).get(key, ""))


def _name(descriptor: Descriptor) -> str:
    """The full reference of a descriptor, "" for none."""
    return _annotation(descriptor, media.REF_NAME)


def _by_name(text: str, descriptors: Descriptors, *, strict: bool) -> Descriptor | None:
    """The descriptor that the reference `text` names. A text that is no reference raises UsageError if `strict`."""
    try:
        wanted = refs.normalise(text)
    except UsageError:
        if strict:
            raise
        return None
    for item in descriptors:
        if not wanted.digest:
            if _name(item) == str(wanted):
                return item
        elif f"{wanted.repository}@{wanted.digest}" in _annotation(item, media.REPO_DIGESTS).split() or (
            item["digest"] == wanted.digest and _name(item).startswith(f"{wanted.repository}:")
        ):
            return item
    return None


def _check_removal(
    text: str, image_id: str, group: Descriptors, doomed: Descriptors, users: Names, force: bool
) -> None:
    """docker's rules for `rmi`: what needs --force, and what even that does not do. Raises Conflict."""
    last = len(doomed) == len(group)
    what = f"cannot remove image '{text}'"
    if users and last:
        who = (
            f"container {users[0]} uses it"
            if len(users) == 1
            else f"{len(users)} containers use it ({', '.join(users[:3])})"
        )
        if not any(_name(item) for item in doomed):
            raise Conflict(what, who, hint="remove the containers first: pyrun rm")
        if not force:
            raise Conflict(what, who, hint="remove the containers first, or take only the name off with --force")
    repositories = {refs.parse(_name(item)).repository for item in doomed if _name(item)}
    if len(doomed) > 1 and len(repositories) > 1 and not force:
        raise Conflict(what, "it has names in several repositories", hint="remove the names one by one, or use --force")


def _no_such_image(text: str, descriptors: Descriptors) -> NotFound:
    from difflib import get_close_matches  # only for somebody who mistyped

    names = sorted({refs.familiar(_name(item)) for item in descriptors if _name(item)})
    bare = {name.rpartition(":")[0]: name for name in names}
    wanted = text.rpartition(":")[0] or text
    near = [name for name in names if name.rpartition(":")[0] == wanted]
    near += [bare[name] for name in get_close_matches(wanted, bare, 3, 0.6) if bare[name] not in near]
    hint = f"did you mean {' or '.join(near[:3])}?" if near else "pyrun images lists what is there"
    return NotFound(f"no such image '{text}'", hint=hint)
