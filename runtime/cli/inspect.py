# SPDX-License-Identifier: Apache-2.0
"""pyrun inspect: everything about containers, images, volumes and networks, as JSON or through a template."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.context import render
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.cli.values import one_of
from pyrun.runtime.engine.template_functions import Map, Thing
from pyrun.runtime.errors import NotFound, PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.runtime.cli.context import Context


def _container(ctx: Context, name: str, args: Args) -> dict[str, Any]:
    from pyrun.runtime.engine import inspect
    from pyrun.runtime.engine.containers import ContainerStore

    store = ContainerStore(ctx.paths)
    container = store.load(store.lookup(name.removeprefix("/")))
    state = store.settle(container.id, store.load_state(container.id))
    size = args.command.name != "image inspect" and args.on("size")
    return inspect.container(ctx.paths, container, state, size=size)


def _image(ctx: Context, name: str, args: Args) -> dict[str, Any]:
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(ctx.paths)
    found: dict[str, Any] = images.inspect(images.resolve(name))
    for name, value in found["Config"].items():  # their keys are data: a template may ask for one that is missing
        if name in ("Labels", "ExposedPorts", "Volumes") and isinstance(value, dict):
            found["Config"][name] = Map(value)
    return found


def _volume(ctx: Context, name: str, args: Args) -> dict[str, Any]:
    from pyrun.runtime.cli.volume import shown

    return shown(ctx, name)


def _network(ctx: Context, name: str, args: Args) -> dict[str, Any]:
    from pyrun.runtime.cli.network import shown

    return shown(ctx, name)


KINDS: dict[str, Callable[[Context, str, Args], dict[str, Any]]] = {
    "container": _container,
    "image": _image,
    "volume": _volume,
    "network": _network,
}


def run(args: Args, ctx: Context) -> int:
    """Every object that is found; then the errors of those that are not, and 1."""
    asked = args.text("type") if "type" in args.flags else ""
    kind = {"container inspect": "container", "image inspect": "image"}.get(args.command.name, asked)
    kinds = (kind,) if kind else tuple(KINDS)
    found: list[dict[str, Any]] = []
    errors: list[PyrunError] = []
    for name in args.arguments:
        try:
            found.append(_find(ctx, name, args, kinds))
        except PyrunError as error:
            errors.append(error)
    if found or not args.text("format"):
        output.print_objects(ctx, found, args.text("format"))
    ctx.stdout.flush()
    for failure in errors:
        render(failure, ctx.stderr)
    return 1 if errors else 0


def _find(ctx: Context, name: str, args: Args, kinds: tuple[str, ...]) -> dict[str, Any]:
    for kind in kinds:
        try:
            return Thing(KINDS[kind](ctx, name, args), kind)
        except (NotFound, UsageError):  # a name of one kind may be no name at all of another
            if len(kinds) == 1:
                raise
    raise NotFound(f"no such object '{name}'", hint="pyrun ps -a and pyrun images list what there is")


FLAGS = (output.INSPECT_FORMAT, Flag("size", "s", SWITCH, "containers: how much was written"))
INSPECT = Command(
    "inspect",
    "NAME|ID [NAME|ID...]",
    "Show everything about containers, images, volumes and networks",
    run,
    (*FLAGS, Flag("type", help=f"only this kind: {', '.join(KINDS)}", metavar="KIND", parse=one_of(*KINDS))),
    least=1,
)
CONTAINER_INSPECT = Command(
    "container inspect", "CONTAINER [CONTAINER...]", "Show everything about containers", run, FLAGS, least=1
)
IMAGE_INSPECT = Command(
    "image inspect", "IMAGE [IMAGE...]", "Show everything about images", run, (output.INSPECT_FORMAT,), least=1
)
