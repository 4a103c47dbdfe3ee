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

from . import collect as collecting
from . import image as images
from . import keeping, media, naming, refs
from .collect import Pruned
from .disk import writing
from .layers import Layers
from .layout import Ingest, Layout, load_json
from .limits import DEFAULT_LIMITS, ArchiveError, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any, BinaryIO

    from pyrun.runtime.files import Lock
    from pyrun.runtime.paths import Paths

    from .image import Image, Layer
    from .layout import Descriptor, Descriptors
    from .stream import Readable
    from .unpacker import Unpacker
    from .usage import StoreUsage

    Names = list[str]  # inside the class, `list` is its method
    Images = list[Image]
    Keeps = list[keeping.Keep]

list_of = list


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
        for group in self.groups(self.layout.index()).values():
            try:
                found.append(self.image_of(group))
            except PyrunError:
                continue
        return sorted(found, key=lambda image: image.created, reverse=True)

    def resolve(self, text: str) -> Image:
        """The image that `text` names: a name, name@digest, an id or the beginning of one.

        Raises NotFound with the nearest names as hint, Conflict when the beginning fits several, UsageError,
        ArchiveError.
        """
        descriptors = self.layout.index()
        return self.image_of(self.find(text, descriptors))

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
            self.recover()
            descriptors = self.layout.index()
            chosen = self.find(source, descriptors)[0]
            self.layout.write_index(naming.renamed(descriptors, str(name), chosen))

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
        from . import removing

        return removing.remove(self, text, force, in_use)

    def prune(
        self,
        *,
        all: bool = False,  # noqa: A002 - the flag's name
        keep: Callable[[Image], bool] = lambda image: False,
        in_use: Callable[[str], Collection[str]] = lambda image_id: (),
    ) -> Pruned:
        """Removes images without a name, with `all` every image that no container uses, and partial downloads.

        keep: whether an image stays all the same (filters by label or age). in_use: as for remove(). What the build
        cache keeps stays. Returns the lines that remove() gives, and the bytes that became free. Raises OSError.
        """
        from . import removing

        return removing.prune(self, all, keep, in_use)

    def usage(self) -> StoreUsage:
        """What the store takes, for `system df`; see usage.py."""
        from . import usage

        return usage.usage(self)

    # Keeping ------------------------------------------------------------------------------------------------------

    def keep(
        self, ingest: Ingest | None, name: str, *, layers: Sequence[str], blobs: Sequence[str], data: Mapping[str, Any]
    ) -> None:
        """Keeps layers (chain ids) and blobs (digests; of `ingest`, or in the store) until drop_kept(name).

        data: what the owner wants to find again, a JSON object. Replaces what the name had. Raises PyrunError when one
        of them is not there, UsageError for a name that is no file name, OSError.
        """
        kept = keeping.Keep(name, tuple(layers), tuple(blobs), data, 0.0)
        mine = [digest for digest in blobs if ingest is not None and digest in ingest.sizes]
        with writing(f"keep {name}"), step("rootfs", f"keep {name}"):
            if ingest is not None and mine:
                ingest.sync(mine)
            with self.layout.lock():
                self.layout.create()
                if ingest is not None:
                    ingest.publish(mine)
                missing = self._missing(kept)
                if missing:
                    self.layout.mark_garbage()
                    raise PyrunError(f"keep {name}", f"{missing} is not in the store")
                keeping.write(self.layout, kept)

    def kept(self, prefix: str = "") -> Keeps:
        """All that is kept under names that begin with `prefix`, by name; parts of it may be gone."""
        return list_of(keeping.every(self.layout, prefix))

    def kept_one(self, name: str) -> keeping.Keep | None:
        """What is kept under `name`, noted as used now; None when there is none, or a part of it is gone."""
        found = keeping.read(self.layout, name)
        if found is None or self._missing(found):
            return None
        try:
            os.utime(keeping.path_of(self.layout, name))
        except FileNotFoundError:
            return None
        return found

    def drop_kept(self, names: Iterable[str]) -> Pruned:
        """Forgets what is kept under these names, and removes what nobody else needs of it. Never inside hold()."""
        from . import removing

        return removing.drop_kept(self, names)

    def find_blob(self, digest: str) -> str | None:
        """The path of a blob that the store has. It is safe from removal only while an ingest has it: Ingest.pin()."""
        path = self.layout.blob(digest)
        return path if refs.is_digest(digest) and digest.startswith("sha256:") and os.path.exists(path) else None

    def _missing(self, kept: keeping.Keep) -> str:
        """The first layer or blob of it that is not in the store, "" for none."""
        for chain_id in kept.layers:
            if not self.layers.has(chain_id):
                return f"layer {chain_id}"
        return next((f"blob {digest}" for digest in kept.blobs if self.find_blob(digest) is None), "")

    # Adding -------------------------------------------------------------------------------------------------------

    def add(
        self,
        ingest: Ingest,
        manifest_digest: str,
        names: Sequence[str] = (),
        *,
        repo_digests: Sequence[str] = (),
        exact: bool = True,
        unpacker: Unpacker | None = None,
    ) -> Image:
        """Makes an image whose blobs are all in `ingest` part of the store: verifies, unpacks, then shows it under
        `names`.

        names: full references. `exact=False`: an image with the same id that is there already is named instead.
        `unpacker`: one of this image's layers, some of which it has begun. Raises SpecError, ArchiveError, OSError;
        then the store is as it was.
        """
        image = images.parse(manifest_digest, *self._documents(ingest, manifest_digest))
        self._check_blobs(ingest, image)
        ingest.keep_layers(image.chain_ids)
        if not self._unpack(ingest, image, unpacker):
            ingest.sync()
        with self.layout.lock(), step("rootfs", f"add image {refs.short_id(image.id)} {' '.join(names)}"):
            self.recover()
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
                descriptors = naming.renamed(descriptors, name, descriptor)
            self.layout.write_index(descriptors)
            group = [item for item in descriptors if item["digest"] == descriptor["digest"]]
            return self.image_of(group)

    def _unpack(self, ingest: Ingest, image: Image, unpacker: Unpacker | None) -> bool:
        """Makes the layers of an image visible; whether any was new, and so everything was synced."""

        def opened(layer: Layer) -> BinaryIO:
            return open(ingest.blob(layer.digest), "rb")

        synced = unpacker.finish(opened) if unpacker is not None else False
        with self.unpacker(image.layers) as missing:
            for layer in image.layers:
                if not self.layers.has(layer.chain_id):
                    missing.start(layer, ingest.blob(layer.digest), verified=layer.digest in ingest.verified)
            return missing.finish(opened) or synced

    def unpacker(self, layers: Sequence[Layer]) -> Unpacker:
        """A `with` block that unpacks an image's layers (all of them, lowest first) while their blobs come in."""
        from .unpacker import Unpacker

        return Unpacker(self.layers, layers, self.limits)

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

    # For its siblings here -----------------------------------------------------------------------------------------

    def groups(self, descriptors: Descriptors) -> dict[str, Descriptors]:
        """The image descriptors by image id; those whose manifest cannot be read are left out."""
        groups: dict[str, Descriptors] = {}
        for descriptor in descriptors:
            if descriptor.get("mediaType") not in media.INDEXES:
                try:
                    groups.setdefault(self.config_digest(descriptor), []).append(descriptor)
                except PyrunError:
                    continue
        return groups

    def config_digest(self, descriptor: Descriptor) -> str:
        """The image's id."""
        known = naming.annotation(descriptor, media.CONFIG_DIGEST)
        if known:
            return known
        return images.manifest_blobs(self.layout.read_json(descriptor["digest"], self.limits))[0][0]

    def image_of(self, group: Descriptors) -> Image:
        """The Image of descriptors that all stand for it."""
        digest = group[0]["digest"]
        manifest = self.layout.read_json(digest, self.limits)
        config = self.layout.read_json(images.manifest_blobs(manifest)[0][0], self.limits)
        image = images.parse(digest, manifest, config)
        sizes = [self.layers.size(layer.chain_id) for layer in image.layers]
        size = sum(layer.size if known is None else known for layer, known in zip(image.layers, sizes, strict=True))
        names = sorted({refs.familiar(naming.name_of(item)) for item in group if naming.name_of(item)})
        pulled = {text for item in group for text in naming.annotation(item, media.REPO_DIGESTS).split()}
        return image.replace(names=tuple(names), size=size, repo_digests=tuple(sorted(pulled)))

    def find(self, text: str, descriptors: Descriptors) -> Descriptors:
        """The descriptors of the image that `text` names, the one that was named first."""
        prefix = refs.id_prefix(text)
        if not (len(prefix) == 64 or text.startswith("sha256:")):
            named = naming.by_name(text, descriptors, strict=not prefix)
            if named is not None:
                same = self.groups(descriptors).get(self.config_digest(named), [named])
                return [named, *(item for item in same if item is not named)]
        if prefix:
            groups = {key: group for key, group in self.groups(descriptors).items() if key[7:].startswith(prefix)}
            if len(groups) == 1:
                return next(iter(groups.values()))
            if groups:
                raise Conflict(
                    f"image id '{text}' is ambiguous", f"{len(groups)} images begin with it", hint="add more digits"
                )
        raise naming.no_such_image(text, descriptors)

    def _existing(self, descriptors: Descriptors, image_id: str) -> Descriptor | None:
        """The descriptor of an image that is here already, if it is whole: loading a damaged one again repairs it."""
        group = self.groups(descriptors).get(image_id)
        try:
            layers = self.image_of(group).layers if group else ()
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

    def recover(self) -> None:
        """Finishes what dead processes began; the layout's lock is held."""
        if collecting.needed(self.layout, self.layers):
            self.collect(layers_locked=False)
        self.layout.recover()
        self.layers.recover()

    def collect(self, *, layers_locked: bool) -> tuple[Names, int]:
        """Removes what nothing needs: see collect.collect(). The layout's lock is held."""
        return collecting.collect(self.layout, self.layers, self._used, layers_locked=layers_locked)

    def _used(self, descriptor: Descriptor) -> tuple[Iterable[str], Iterable[str]]:
        """The blobs and the chain ids that a descriptor keeps alive. Raises PyrunError."""
        manifest = self.layout.read_json(descriptor["digest"], self.limits)
        config = images.manifest_blobs(manifest)[0][0]
        image = images.parse(descriptor["digest"], manifest, self.layout.read_json(config, self.limits))
        return (descriptor["digest"], config, *(layer.digest for layer in image.layers)), image.chain_ids
