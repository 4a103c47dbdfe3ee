# SPDX-License-Identifier: Apache-2.0
"""pyrun manifest create, annotate, inspect, push, rm: one name for the images of several platforms."""

from __future__ import annotations

from pyrun.runtime.cli.flags import LIST, SWITCH, Args, Command, Flag
from pyrun.runtime.errors import Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.rootfs.refs import Reference
    from pyrun.rootfs.registry.config import Registries
    from pyrun.rootfs.registry.lists import Member
    from pyrun.runtime.cli.context import Context


def reference_of(text: str) -> Reference:
    """A name on the command line, with its tag."""
    from pyrun.rootfs import refs

    return refs.normalise(text)


def registries_of(args: Args, *names: Reference) -> Registries:
    """The configuration; with --insecure the registries of these names need no valid certificate, nor HTTPS."""
    from pyrun.rootfs.registry.config import Entry, Registries

    registries = Registries.load()
    for domain in {name.domain for name in names} if args.on("insecure") else ():
        found = registries.entries.get(domain) or Entry(domain)
        registries.entries[domain] = found.replace(insecure=True)
    return registries


def existing(name: Reference) -> list[Member]:
    """The members of a list that must be there. Raises NotFound."""
    from pyrun.rootfs.registry import lists

    found = lists.load(name)
    if not found:
        raise NotFound(f"no such manifest list '{name.familiar}'", hint="pyrun manifest create makes one")
    return found


def create(args: Args, ctx: Context) -> int:
    """Makes a list of images that are in a registry already."""
    from pyrun.rootfs.registry import lists

    target, *names = map(reference_of, args.arguments)
    if lists.load(target) and not args.on("amend"):
        hint = f"--amend adds to it, pyrun manifest rm {target.familiar} removes it"
        raise Conflict(f"manifest list '{target.familiar}'", "there is one", hint=hint)
    registries = registries_of(args, *names)
    members = [lists.member(name, registries) for name in names]  # all of them, before anything is written
    for member in members:
        lists.save(target, member)
    ctx.print(f"Created manifest list {target}")
    return 0


def annotate(args: Args, ctx: Context) -> int:
    """Says what an image of a list is for, where its config does not, or says something else."""
    from pyrun.rootfs.registry import lists

    target, name = map(reference_of, args.arguments)
    for member in existing(target):
        if member.ref == str(name):
            platform = dict(member.platform)
            for flag, key in (
                ("arch", "architecture"),
                ("os", "os"),
                ("variant", "variant"),
                ("os-version", "os.version"),
            ):
                if args.text(flag):
                    platform[key] = args.text(flag)
            features = [word for text in args.many("os-features") for word in text.split(",") if word]
            if features:
                platform["os.features"] = features
            lists.save(target, member.replace(platform=platform))
            return 0
    listed = ", ".join(reference_of(member.ref).familiar for member in existing(target))
    raise NotFound(f"no image '{name.familiar}' in the manifest list '{target.familiar}'", hint=f"there is {listed}")


def inspect(args: Args, ctx: Context) -> int:
    """A list in the making, an image of one, or what a registry has, as JSON."""
    import json

    from pyrun.rootfs.registry import lists

    names = list(map(reference_of, args.arguments))
    verbose = args.on("verbose")
    if len(names) == 2:
        found = [member for member in existing(names[0]) if member.ref == str(names[1])]
        if not found:
            raise NotFound(f"no image '{names[1].familiar}' in the manifest list '{names[0].familiar}'")
        print_json(ctx, found[0].to_json() if verbose else json.loads(found[0].data))
        return 0
    members = lists.load(names[0])
    if members:
        print_json(ctx, [member.to_json() for member in members] if verbose else json.loads(lists.index_of(members)[0]))
        return 0
    registries = registries_of(args, names[0])
    document = lists.document(names[0], registries)
    if verbose and document.is_index:
        print_json(ctx, [member.to_json() for member in lists.members(names[0], document, registries)])
    elif verbose:
        print_json(ctx, lists.member(names[0], registries).to_json())
    else:
        print_json(ctx, document.value)
    return 0


def print_json(ctx: Context, value: Any) -> None:
    """As docker prints it: a list's index by three blanks, everything else by tabs."""
    import json

    index = isinstance(value, dict) and "manifests" in value
    ctx.print(json.dumps(value, indent=3 if index else "\t", ensure_ascii=False))


def push(args: Args, ctx: Context) -> int:
    """Pushes a list; prints the index's digest last."""
    from pyrun.rootfs.registry import lists
    from pyrun.rootfs.registry.pushlist import push_list
    from pyrun.runtime.cli.progress import Shown

    target = reference_of(args.arguments[0])
    members = existing(target)
    registries = registries_of(args, target, *(reference_of(member.ref) for member in members))
    with Shown(ctx.stdout) as progress:
        digest = push_list(target, members, registries=registries, progress=progress)
    ctx.print(digest)
    if args.on("purge"):
        lists.remove(target)
    return 0


def remove(args: Args, ctx: Context) -> int:
    """Removes lists in the making; registries are not touched."""
    from pyrun.rootfs.registry import lists

    return ctx.each(args.arguments, lambda text: lists.remove(reference_of(text)))


INSECURE = Flag("insecure", kind=SWITCH, help="the registry may speak HTTP, or have any certificate")

CREATE = Command(
    "manifest create",
    "LIST IMAGE [IMAGE...]",
    "Make a manifest list of images that are in a registry",
    create,
    (Flag("amend", "a", SWITCH, "add to a list that is there"), INSECURE),
    least=2,
    details="""\
Example:
  pyrun manifest create localhost:5000/app:1 localhost:5000/app:1-amd64 localhost:5000/app:1-arm64
  pyrun manifest push localhost:5000/app:1""",
)
ANNOTATE = Command(
    "manifest annotate",
    "LIST IMAGE",
    "Say what an image of a manifest list is for",
    annotate,
    (
        Flag("arch", help="architecture, such as arm64", metavar="NAME"),
        Flag("os", help="operating system, such as linux", metavar="NAME"),
        Flag("os-features", kind=LIST, help="features of the operating system", metavar="NAME[,NAME…]"),
        Flag("os-version", help="version of the operating system", metavar="VERSION"),
        Flag("variant", help="variant of the architecture, such as v8", metavar="NAME"),
    ),
    least=2,
    most=2,
)
INSPECT = Command(
    "manifest inspect",
    "[LIST] IMAGE",
    "Show a manifest, or a manifest list, as JSON",
    inspect,
    (INSECURE, Flag("verbose", "v", SWITCH, "with name, descriptor and platform")),
    least=1,
    most=2,
)
PUSH = Command(
    "manifest push",
    "LIST",
    "Push a manifest list and its images to the list's registry",
    push,
    (INSECURE, Flag("purge", "p", SWITCH, "remove the local list then")),
    least=1,
    most=1,
)
RM = Command("manifest rm", "LIST [LIST...]", "Remove manifest lists that are in the making", remove, least=1)
