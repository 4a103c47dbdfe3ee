# SPDX-License-Identifier: Apache-2.0
"""The part of lint.py that follows variables through a Dockerfile: which are used before anything sets them."""

from __future__ import annotations

from pyrun.runtime.errors import UsageError

from . import expand, instructions, platforms
from . import steps as s
from .nearest import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .dockerfile import Instruction

    Environment = Callable[[str], Mapping[str, str] | None]  # of a base image; None: not known
    Placed = Iterator[tuple[str, Instruction, str]]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what RUN has where the image sets none
_BUILDKIT = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")


class _Scope:
    """The variables of one stage. `declared`: an ARG without a value is no mistake; `certain`: nothing else is set."""

    def __init__(self, values: Mapping[str, str], declared: set[str], certain: bool) -> None:
        self.values = dict(values)
        self.declared = set(declared)
        self.certain = certain

    def missing(self, used: set[str]) -> Iterator[tuple[str, str]]:
        """(name, the one that was probably meant) of the used ones that are not there."""
        for name in sorted(used - self.declared - set(self.values) - set(_BUILDKIT)):
            meant = nearest(name, [known for known in self.values if known != name])
            if self.certain or meant:
                yield name, meant


def variable_findings(
    metas: Sequence[s.Arg], stages: Sequence[s.Stage], build_args: Mapping[str, str], environment: Environment | None
) -> Placed:
    """UndefinedArgInFrom, InvalidDefaultArgInFrom and UndefinedVar."""
    defaults = _globals(metas, {})
    known = _globals(metas, build_args)
    declared = {*platforms.PREDEFINED, *(name for meta in metas for name, _ in meta.pairs)}
    scopes: list[_Scope] = []
    for stage in stages:
        yield from _base(stage.base, known, defaults, declared)
        scope = _scope(stage, stages, scopes, known, environment)
        scopes.append(scope)
        for step in stage.steps:
            used, values = _used(step, scope, known, build_args)
            for name, meant in scope.missing(used):
                hint = f": did you mean ${meant}?" if meant else ""
                yield "UndefinedVar", step.at, f"nothing sets ${name}{hint}"
            scope.values |= values


def _globals(metas: Sequence[s.Arg], build_args: Mapping[str, str]) -> dict[str, str]:
    """The ARGs before the first FROM, and the predefined ones, for this machine."""
    host = platforms.host()
    values = platforms.arguments(host, host) | {k: v for k, v in build_args.items() if k in platforms.PREDEFINED}
    for meta in metas:
        try:
            found = instructions.resolve_args(meta, values.get, build_args)
        except UsageError:  # the build says so
            continue
        values |= {name: value for name, value in found if value is not None}
    return values


def _base(base: s.From, known: Mapping[str, str], defaults: Mapping[str, str], declared: set[str]) -> Placed:
    used: set[str] = set()
    try:
        instructions.expanded(base, known.get, used=used)
        image = expand.expand(base.image, defaults.get, escape=base.at.escape)
    except UsageError:
        return
    for name in sorted(used - declared):
        meant = nearest(name, declared)
        hint = f": did you mean {meant}?" if meant else ""
        yield "UndefinedArgInFrom", base.at, f"no ARG before it declares '{name}'{hint}"
    if not _is_image(image):
        message = f"'{base.image}' is {f'{image!r}, no valid image,' if image else 'empty'} without build arguments"
        yield "InvalidDefaultArgInFrom", base.at, message


def _is_image(text: str) -> bool:
    from pyrun.rootfs import refs

    try:
        refs.parse(text)
    except UsageError:
        return False
    return True


def _scope(
    stage: s.Stage,
    stages: Sequence[s.Stage],
    scopes: Sequence[_Scope],
    known: Mapping[str, str],
    environment: Environment | None,
) -> _Scope:
    """The variables at the beginning of a stage: its base's, and after another stage that one's ARGs as well."""
    try:
        image = instructions.expanded(stage.base, known.get).image
    except UsageError:
        image = ""
    below = instructions.find_stage(stages, image, before=stage.index)
    if below is not None and not image.isdigit():
        scope = scopes[below.index]
        return _Scope(scope.values, scope.declared, scope.certain)
    if image == "scratch":
        return _Scope({"PATH": PATH}, set(), True)
    found = environment(image) if environment is not None and image else None
    return _Scope({"PATH": PATH, **(found or {})}, set(), found is not None)


def _used(
    step: s.Step, scope: _Scope, known: Mapping[str, str], build_args: Mapping[str, str]
) -> tuple[set[str], dict[str, str]]:
    """(the variables that a step asks for, those that it sets for the steps after it)."""
    used: set[str] = set()
    before = scope.values.get
    try:
        if isinstance(step, s.Arg):
            pairs = instructions.resolve_args(step, before, build_args, known, used=used)
            scope.declared |= {name for name, _ in pairs}
            return used, {name: value for name, value in pairs if value is not None}
        if isinstance(step, s.Run):
            for mount in step.mounts:
                instructions.parse_mount(mount, before, escape=step.at.escape, used=used)
            return used, {}
        done = instructions.expanded(step, before, used=used)
    except UsageError:  # ${name?message} and its like: the build says so
        return set(), {}
    return used, dict(done.pairs) if isinstance(done, s.Env) else {}
