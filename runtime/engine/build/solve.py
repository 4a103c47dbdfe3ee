# SPDX-License-Identifier: Apache-2.0
"""build(): a Dockerfile and a context become an image.

    1. read the Dockerfile, find the stages that the target needs
    2. probe: every stage, in order, takes from the cache what it can, up to the first step that has to be made
    3. the stages that are not at their end go on, each in a thread, waiting for one another where they must
    4. the target's state becomes an image, files, an archive (output.py)

When everything is cached, step 3 is empty: no thread, no ingest, nothing synced. A step that fails ends the others.
"""

from __future__ import annotations

import os

from pyrun.rootfs.build import dockerfile as language
from pyrun.rootfs.build import instructions, platforms
from pyrun.rootfs.build.giturl import masked
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from pyrun.runtime.record import Record

from . import configure
from .failure import with_lines
from .graph import Graph
from .progress import Progress
from .work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrun.rootfs.build.lint import Finding
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths

    from .graph import Node
    from .options import BuildOptions
    from .output import Built
    from .stage import State


class Planned(Record):
    """One line of --explain: a step of a needed stage, and what would become of it."""

    stage: str
    text: str
    fate: str  # "cached", "run", "config", or "depends" on steps that have to be run first
    line: int


def solve(graph: Graph) -> State:
    """The end state of the target. Raises what the first stage that failed raised."""
    order = graph.needed(graph.target())
    probe(graph, order)
    left = [node for node in order if not node.finished.is_set()]
    try:
        for node in left[:-1]:
            graph.start(node)
        if left and left[-1].thread is None:
            left[-1].run()  # the target itself needs no further thread
    except BaseException as error:  # the user's interruption, in the main thread
        graph.failed(graph.target(), error)
        raise
    finally:
        try:
            graph.join()
        except BaseException:  # interrupted while it waited
            graph.work.cancel.set()
            graph.join()
            raise
    if graph.error is not None:
        raise graph.error
    state = graph.target().state
    assert state is not None
    return state


def probe(graph: Graph, order: Sequence[Node]) -> None:
    """Takes from the cache what can be taken, in this thread."""
    graph.work.probing = True
    try:
        for node in order:
            node.advance()
    finally:
        graph.work.probing = False


def explain(graph: Graph) -> list[Planned]:
    """What a build would do: for each step of each needed stage whether it is cached. Nothing is run."""
    order = graph.needed(graph.target())
    probe(graph, order)
    lines = []
    for node in order:
        base = node.stage.base
        fate = "run" if node.state is None else "cached"
        lines.append(Planned(node.label, f"FROM {graph.global_word(base.image, base.at)}", fate, base.at.line))
        for position, step in enumerate(node.todo):
            if type(step) in configure.ACTIONS:
                fate = "config"
            elif position < node.at:
                fate = "cached"
            else:
                fate = "run" if position == node.at and node.state is not None else "depends"
            lines.append(Planned(node.label, masked(step.at.original), fate, step.at.line))
    return lines


def read(work: Work, file: str) -> Graph:
    """The Dockerfile of a build, its stages found. Raises NotFound, UsageError."""
    path = file if file and file != "-" else "Dockerfile"
    vertex = work.progress.vertex(f"[internal] read {path}")
    vertex.start()
    try:
        data = work.context.dockerfile(file)
        parsed = language.parse(data, path=path)
        metas, stages = instructions.stages(parsed)
    except language.DockerfileError as error:
        vertex.error(str(error))
        lines = data.decode("utf-8", "surrogateescape").splitlines()
        raise with_lines(error, error.what, lines, error.line, error.line) if error.line else error from None
    except BaseException as error:
        vertex.broken(error)
        raise
    vertex.status(f"{len(stages)} stage{'' if len(stages) == 1 else 's'}, {len(data)} bytes")
    vertex.done()
    return Graph(work, parsed, metas, stages, proxies_of(work.options))


def build(
    paths: Paths,
    options: BuildOptions,
    progress: Progress | None = None,
    *,
    stdin: Any = None,
    link: WorkerLink | None = None,
) -> Built:
    """Builds an image (or files) and gives what came out.

    Call it in a worker of the monitor, with its link: RUN's containers are its children. `stdin`: a binary stream, for
    a context or a Dockerfile "-". Raises UsageError (the Dockerfile, the options), NotFound, StepFailed, OSError; then
    the store has nothing new but cached steps.
    """
    from . import output

    check_given(options)
    with Work(paths, options, progress or Progress(), link) as work:
        graph = load(work, stdin)
        if options.cache_from:
            from . import sharing

            sharing.import_all(work)
        warnings = remarks(graph) if options.lint else ()
        state = solve(graph)
        built = output.finish(work, state).replace(warnings=warnings)
        if options.cache_to:
            from . import sharing

            sharing.export_all(work, state, built)
        return built


def check_given(options: BuildOptions) -> None:
    """Secrets and keys that were promised must be there before any work is done. Raises NotFound."""
    for secret in options.secrets:
        if secret.env and secret.env not in os.environ:
            raise NotFound(f"--secret id={secret.id}", f"${secret.env} is not set")
        if secret.path:
            _must_exist(f"--secret id={secret.id}", secret.path)
    for agent in options.ssh:
        for path in agent.paths:
            _must_exist(f"--ssh {agent.id}", path)


def _must_exist(what: str, path: str) -> None:
    try:
        os.stat(path)
    except OSError as error:
        raise NotFound(what, f"{path}: {os.strerror(error.errno or 0).lower()}") from None


def findings(graph: Graph) -> list[Finding]:
    """What the rules find in the Dockerfile, given .dockerignore and the base images that are here already."""
    from pyrun.rootfs.build import lint

    def environment(name: str) -> dict[str, str] | None:
        store = graph.work.store
        try:
            with store.hold():
                return dict(item.partition("=")[::2] for item in store.resolve(name).config.env)
        except PyrunError:
            return None

    ignore = graph.work.context.tree.ignore
    return lint.check(graph.file, build_args=graph.build_args, ignore=ignore, environment=environment)


def remarks(graph: Graph) -> tuple[str, ...]:
    """What the rules find, and build arguments that no ARG takes. Raises UsageError under `# check=error=true`."""
    from pyrun.rootfs.build import lint

    file = graph.file
    found = findings(graph)
    lines = [f"{finding} (line {finding.line})" for finding in found]
    if found and lint.file_options(file).error:
        error = UsageError(f"{file.path}:{found[0].line}", f"{found[0]}", hint="the file says check=error=true")
        raise with_lines(error, error.what, file.lines, found[0].line, found[0].line)
    return (*lines, *unused_arguments(graph))


def unused_arguments(graph: Graph) -> tuple[str, ...]:
    """A remark for each --build-arg that no ARG takes."""
    known = {*graph.globals, *platforms.PROXIES, *platforms.PREDEFINED, "SOURCE_DATE_EPOCH"}
    args = (step for stage in graph.stages for step in stage.steps if isinstance(step, instructions.Arg))
    known.update(name for step in args for name, _ in step.pairs)
    unused = [
        name for name, _ in graph.work.options.build_args if name not in known and not name.startswith("BUILDKIT_")
    ]
    return tuple(f"--build-arg {name}: there is no ARG of that name" for name in unused)


def load(work: Work, stdin: Any) -> Graph:
    """Opens the context and reads the Dockerfile. Raises NotFound, UsageError."""
    from pyrun.rootfs.build.context import open_context

    options = work.options
    is_local = options.context != "-" and os.path.isdir(options.context)
    scratch = "" if is_local else work.scratch()
    work.context = open_context(options.context, stdin=stdin, scratch=scratch, hashes=work.hashes())
    work.closing(work.context.close)
    return read(work, options.file)


def proxies_of(options: BuildOptions) -> dict[str, str]:
    """The predefined proxy arguments that were given: RUN sees them, no key and no history does."""
    return {name: value for name, value in options.build_args if name in platforms.PROXIES}
