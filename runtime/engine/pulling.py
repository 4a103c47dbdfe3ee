# SPDX-License-Identifier: Apache-2.0
"""Getting an image that a command needs: from the store, else from its registry.

`run` and `create` first look into the store and come here only when the image is not there (or with --pull always): a
start from an image that is here loads nothing of this. No lock is held while a registry is asked.
"""

from __future__ import annotations

from pyrun.rootfs import media, refs
from pyrun.rootfs.registry.progress import Progress
from pyrun.rootfs.store import ImageStore
from pyrun.runtime import events
from pyrun.runtime.errors import NotFound, PyrunError, Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Self

    from pyrun.rootfs.image import Image
    from pyrun.rootfs.registry.config import Registries
    from pyrun.rootfs.registry.pull import Pulled
    from pyrun.runtime.engine.options import RunOptions
    from pyrun.runtime.paths import Paths

    ProgressMaker = Callable[[], AbstractContextManager[Progress]]

#: (this machine's architecture, an image's) that run here without emulation
COMPATIBLE = {("amd64", "386"), ("arm64", "arm")}
MISSING, ALWAYS, NEVER = "missing", "always", "never"
ELSEWHERE = (
    "pyrun load -i FILE takes an archive, scripts/base-image makes a stand-in, /etc/pyrun/registries.toml names mirrors"
)


def ensure(
    paths: Paths,
    text: str,
    *,
    policy: str = MISSING,
    platform: str = "",
    progress: Progress | None = None,
    registries: Registries | None = None,
) -> Image:
    """The image that `text` names, pulled if `policy` wants that: "missing" (it is not here), "always", "never".

    platform: os/architecture[/variant]; an image here of another one counts as missing. progress gets docker's lines.
    Raises NotFound when it is neither here nor to be had, with the registry's reason; UsageError for what is no name.
    """
    return _ensure(paths, text, policy, platform, progress or Progress(), registries)[0]


def pulled(paths: Paths, options: RunOptions, progress: ProgressMaker | None) -> RunOptions:
    """ensure() for run and create: the options, with the image's full name where a short one was an alias."""
    with progress() if progress else Silent() as shown:
        _, name = _ensure(paths, options.image, options.pull, options.platform, shown, None)
    return options if name == options.image else options.replace(image=name)


class Silent(Progress):
    """No progress, for a `with` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def pull_image(
    store: ImageStore,
    reference: refs.Reference,
    *,
    registries: Registries,
    platform: str = "",
    progress: Progress,
) -> Pulled:
    """Pulls one image and says how it ended, in docker's words. Raises what rootfs.registry.pull raises."""
    from pyrun.rootfs.registry.pull import pull

    if not reference.digest:
        check_trust(f"pull {reference.familiar}")
    pulled = pull(store, reference, registries=registries, platform=platform, progress=progress)
    progress.line(f"Digest: {pulled.digest}")
    what = "Downloaded newer image for" if pulled.changed else "Image is up to date for"
    progress.line(f"Status: {what} {reference.familiar}")
    return pulled


def check_trust(what: str) -> None:
    """Raises Unsupported where the environment asks for docker's content trust: nothing here verifies signatures."""
    import os

    if os.environ.get("DOCKER_CONTENT_TRUST", "").lower() in ("1", "t", "true"):
        hint = "name the image by its digest, or unset DOCKER_CONTENT_TRUST"
        raise Unsupported(what, "DOCKER_CONTENT_TRUST is set, and signatures cannot be verified here", hint=hint)


def fits(image: Image, platform: str) -> bool:
    """Whether an image is for os/architecture[/variant]; "" fits all."""
    if not platform or not image.architecture:
        return True
    from pyrun.rootfs.registry import manifests

    own = manifests.Platform(image.os, image.architecture, image.variant)
    return manifests.parse_platform(platform).rank(own) is not None


def warn_of_platform(image: Image) -> None:
    """docker's warning before a start that will probably fail: nothing is emulated, unless binfmt_misc does it."""
    system, architecture, variant = media.host_platform()
    if image.architecture and (architecture, image.architecture) not in COMPATIBLE:
        host = "/".join(part for part in (system, architecture, variant) if part)
        events.warn(
            f"the requested image's platform ({image.platform}) does not match the detected host platform ({host}) "
            "and no specific platform was requested"
        )


def _ensure(
    paths: Paths, text: str, policy: str, platform: str, progress: Progress, registries: Registries | None
) -> tuple[Image, str]:
    """The image, and the name by which the store knows it."""
    if policy not in (MISSING, ALWAYS, NEVER):
        raise UsageError(f"--pull {policy}", "unknown word", hint=f"one of {MISSING}, {ALWAYS}, {NEVER}")
    store = ImageStore(paths)
    here: NotFound | None = None
    if policy != ALWAYS:
        try:
            return _fitting(store.resolve(text), platform), text
        except NotFound as error:
            here = error
    if text.startswith("sha256:") or refs.is_hex_id(text):
        raise here or NotFound(f"no such image '{text}'", "an id cannot be pulled", hint="name a repository")
    if registries is None:
        from pyrun.rootfs.registry.config import Registries

        registries = Registries.load()
    full = registries.short_name(text)
    if here is not None and full != text:
        try:
            return _fitting(store.resolve(full), platform), full
        except NotFound as error:
            here = error
    if policy == NEVER:
        assert here is not None
        raise _not_pulled(text, here)
    reference = refs.normalise(full)
    if here is not None:
        progress.line(f"Unable to find image '{reference.familiar}' locally")
    try:
        pulled = pull_image(store, reference, registries=registries, platform=platform, progress=progress)
    except PyrunError as error:
        raise _neither_nor(text, here, error) from error
    return pulled.image, str(reference) if full != text else text


def _fitting(image: Image, platform: str) -> Image:
    if not fits(image, platform):
        raise NotFound(f"no image for {platform}", f"the one that is here is for {image.platform}")
    return image


def _not_pulled(text: str, here: NotFound) -> NotFound:
    return NotFound(
        here.what, here.why or "it is not here, and --pull never was said",
        hint=here.hint if here.hint.startswith("did you mean") else f"pyrun pull {text}",
    )  # fmt: skip


def _neither_nor(text: str, here: NotFound | None, error: PyrunError) -> PyrunError:
    """One line with the registry's reason. What the registry's error advises comes first, then names that are here."""
    if here is None:
        return error  # --pull always: whether it is here does not matter
    from pyrun.rootfs.registry.errors import Unreachable

    hint = ELSEWHERE if isinstance(error, Unreachable) else error.hint
    if here.hint.startswith("did you mean"):
        hint = here.hint
    reason = error.why if error.what.startswith("no such image") else f"pulling it failed: {error}"
    found = NotFound(f"no such image '{text}'", f"it is not here, and {reason}", hint=hint)
    for note in getattr(error, "__notes__", ()):
        found.add_note(note)
    return found
