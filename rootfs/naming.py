# SPDX-License-Identifier: Apache-2.0
"""The names in index.json: finding the descriptor that a text names, moving names, and docker's rules for removing."""

from __future__ import annotations

from pyrun.runtime.errors import Conflict, NotFound, UsageError

from . import media, refs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layout import Descriptor, Descriptors

    Names = list[str]


def renamed(descriptors: Descriptors, name: str, target: Descriptor) -> Descriptors:
    """The index with the full reference `name` on `target`'s manifest, and on nothing else.

    A manifest that loses its last name this way stays, nameless; a nameless descriptor of the target makes room.
    """
    kept = [item for item in descriptors if name_of(item) != name]
    alive = {item["digest"] for item in kept}
    kept += [nameless(item) for item in descriptors if name_of(item) == name and item["digest"] not in alive]
    kept = [item for item in kept if item["digest"] != target["digest"] or name_of(item)]
    notes = {key: value for key, value in (target.get("annotations") or {}).items() if key in media.OURS}
    notes |= {media.REF_NAME: name, media.CONTAINERD_NAME: name}
    return [*kept, {**target, "annotations": notes}]


def nameless(descriptor: Descriptor) -> Descriptor:
    """The descriptor of an image that is there without a name."""
    notes = {
        k: v
        for k, v in (descriptor.get("annotations") or {}).items()
        if k not in (media.REF_NAME, media.CONTAINERD_NAME)
    }
    plain = {key: value for key, value in descriptor.items() if key != "annotations"}
    return {**plain, "annotations": notes} if notes else plain


def annotation(descriptor: Descriptor, key: str) -> str:
    return str((descriptor.get("annotations") or {}).get(key, ""))


def name_of(descriptor: Descriptor) -> str:
    """The full reference of a descriptor, "" for none."""
    return annotation(descriptor, media.REF_NAME)


def by_name(text: str, descriptors: Descriptors, *, strict: bool) -> Descriptor | None:
    """The descriptor that the reference `text` names. A text that is no reference raises UsageError if `strict`."""
    try:
        wanted = refs.normalise(text)
    except UsageError:
        if strict:
            raise
        return None
    for item in descriptors:
        if not wanted.digest:
            if name_of(item) == str(wanted):
                return item
        elif f"{wanted.repository}@{wanted.digest}" in annotation(item, media.REPO_DIGESTS).split() or (
            item["digest"] == wanted.digest and name_of(item).startswith(f"{wanted.repository}:")
        ):
            return item
    return None


def check_removal(text: str, image_id: str, group: Descriptors, doomed: Descriptors, users: Names, force: bool) -> None:
    """docker's rules for `rmi`: what needs --force, and what even that does not do. Raises Conflict."""
    last = len(doomed) == len(group)
    what = f"cannot remove image '{text}'"
    if users and last:
        who = (
            f"container {users[0]} uses it"
            if len(users) == 1
            else f"{len(users)} containers use it ({', '.join(users[:3])})"
        )
        if not any(name_of(item) for item in doomed):
            raise Conflict(what, who, hint="remove the containers first: pyrun rm")
        if not force:
            raise Conflict(what, who, hint="remove the containers first, or take only the name off with --force")
    repositories = {refs.parse(name_of(item)).repository for item in doomed if name_of(item)}
    if len(doomed) > 1 and len(repositories) > 1 and not force:
        raise Conflict(what, "it has names in several repositories", hint="remove the names one by one, or use --force")


def no_such_image(text: str, descriptors: Descriptors) -> NotFound:
    from difflib import get_close_matches  # only for somebody who mistyped

    names = sorted({refs.familiar(name_of(item)) for item in descriptors if name_of(item)})
    bare = {name.rpartition(":")[0]: name for name in names}
    wanted = text.rpartition(":")[0] or text
    near = [name for name in names if name.rpartition(":")[0] == wanted]
    if "/" not in wanted:  # the same name under a registry or a user
        near += [name for name in names if name.rpartition(":")[0].rpartition("/")[2] == wanted and name not in near]
    near += [bare[name] for name in get_close_matches(wanted, bare, 3, 0.6) if bare[name] not in near]
    if near:
        hint = f"did you mean {' or '.join(near[:3])}?"
    elif refs.id_prefix(text):
        hint = "pyrun images lists what is there"
    else:
        hint = f"pyrun pull {text} fetches it, pyrun load -i FILE reads an archive; pyrun images lists what is there"
    return NotFound(f"no such image '{text}'", hint=hint)
