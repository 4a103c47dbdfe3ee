# SPDX-License-Identifier: Apache-2.0
"""The stages of a Dockerfile on their way: what each is built upon, what it takes from others, how far it has come."""

from __future__ import annotations

from threading import Event, Thread

from pyrun.rootfs.build import instructions, platforms
from pyrun.runtime.errors import NotFound, PyrunError, UsageError

from . import configure, making
from .failure import Cancelled, at_line
from .stage import State
from .work import DOCKER_IMAGE, OCI_LAYOUT, Source, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from pyrun.rootfs.build.dockerfile import Dockerfile, Instruction

    from .making import Prepared
    from .progress import Vertex


class Node:
    """One stage on its way: a state, and how far its instructions were followed."""

    def __init__(self, graph: Graph, stage: Any) -> None:
        self.graph = graph
        self.work = graph.work
        self.stage = stage
        self.state: State | None = None
        self.todo: list[Any] = list(stage.steps)
        self.at = 0
        self.prepared: Prepared | None = None  # the step at `at`, when probing ended there
        self.made = 1  # steps with a vertex so far; FROM is the first
        self.finished = Event()
        self.error: BaseException | None = None
        self.thread: Thread | None = None

    @property
    def label(self) -> str:
        """The stage as BuildKit calls it: its name, stage-1, or nothing when it is the only one."""
        if self.stage.name:
            return str(self.stage.name)
        return f"stage-{self.stage.index}" if len(self.graph.stages) > 1 else ""

    @property
    def total(self) -> int:
        """Steps that are shown, FROM among them."""
        return 1 + sum(1 for step in self.todo if type(step) in making.LAYERED)

    def vertex_name(self, number: int, text: str) -> str:
        """ "[build 2/5] RUN make" """
        label = f"{self.label} " if self.label else ""
        return f"[{label}{number:>{len(str(self.total))}}/{self.total}] {text}"

    def reads_cache(self) -> bool:
        """Whether --no-cache-filter leaves this stage its cache."""
        return str(self.stage.name).lower() not in [name.lower() for name in self.work.options.no_cache_filter]

    def advance(self) -> bool:
        """Follows the instructions to the end (True); while probing, to the first that takes work (False)."""
        instruction: Instruction | None = self.stage.base.at
        try:
            if self.state is None and not self._begin():
                return False
            assert self.state is not None
            while self.at < len(self.todo):
                self.work.check()
                step = self.todo[self.at]
                instruction = step.at
                apply = configure.ACTIONS.get(type(step))
                if apply is not None:
                    apply(self.state, step, self.graph)
                elif not self._layer(step):
                    return False
                self.at += 1
        except PyrunError as error:
            raise at_line(error, self.graph.file, instruction) from error.__cause__
        self.finished.set()
        return True

    def run(self) -> None:
        """advance() in a thread of its own: the first error ends the others."""
        try:
            self.advance()
        except BaseException as error:
            self.graph.failed(self, error)
        finally:
            self.finished.set()

    def _begin(self) -> bool:
        """FROM: the state to start with, and the base's ONBUILD triggers."""
        base = self.stage.base
        graph = self.graph
        name = graph.global_word(base.image, base.at)
        platform = graph.platform_of(base)
        state = graph.base_state(name, platform, self)
        if state is None:
            return False
        triggers = state.config.pop("OnBuild", None) or []
        self.todo[:0] = [step for text in triggers for step in _trigger(text, name)]
        state.hidden = graph.proxies
        self.state = state
        return True

    def _layer(self, step: Any) -> bool:
        """A step that makes a layer: from the cache, or made."""
        assert self.state is not None
        prepared = self.prepared or making.prepare(step, self.state, self)
        if prepared is None:
            return False  # while probing: it needs a stage that is not done
        number = self.made + 1
        if prepared.nothing:  # WORKDIR of a directory that is there
            self.work.progress.vertex(self.vertex_name(number, prepared.title)).cached()
            self.made = number
            self.prepared = None
            self.state.commit(prepared.created_by)
            return True
        layer = making.cached(prepared, self.state, self)
        if layer is None and self.work.probing:
            self.prepared = prepared
            return False
        vertex = self.work.progress.vertex(self.vertex_name(number, prepared.title))
        if layer is not None:
            vertex.cached()
        else:
            layer = making.make(prepared, self.state, self, vertex)
        self.made = number
        self.prepared = None
        self.state.commit(prepared.created_by, layer)
        return True


class Graph:
    """The stages of one Dockerfile, and what is common to them."""

    def __init__(
        self, work: Work, file: Dockerfile, metas: Sequence[Any], stages: Sequence[Any], proxies: Mapping[str, str]
    ) -> None:
        self.work = work
        self.file = file
        self.proxies = dict(proxies)
        self.stages = stages
        self.globals: dict[str, str | None] = {}
        self.build_args = dict(work.options.build_args)
        self.asked = platforms.parse(work.options.platform) if work.options.platform else platforms.host()
        self._set_globals(metas)
        self.nodes = [Node(self, stage) for stage in stages]
        self.error: BaseException | None = None

    # ARGs before the first FROM -----------------------------------------------------------------------------------

    def _set_globals(self, metas: Sequence[Any]) -> None:
        self.globals.update(platforms.arguments(platforms.host(), self.asked, self.work.options.target))
        for name in self.globals:
            self.globals[name] = self.build_args.get(name, self.globals[name])
        for meta in metas:
            try:
                found = instructions.resolve_args(meta, self.globals.get, self.build_args)
            except PyrunError as error:
                raise at_line(error, self.file, meta.at) from None
            self.globals.update(found)

    def _expand(self, text: str) -> str:
        from pyrun.rootfs.build import expand

        return expand.expand(text, self.globals.get, escape=self.file.escape)

    def global_word(self, text: str, instruction: Instruction) -> str:
        """`text` of a FROM, with the global ARGs. Raises UsageError for one that comes out empty."""
        try:
            word = self._expand(text)
            if not word:
                hint = "give the ARG a default, or say --build-arg"
                raise UsageError(f"FROM {text}", "the image's name is empty", hint=hint)
        except PyrunError as error:
            raise at_line(error, self.file, instruction) from None
        return word

    # Stages -------------------------------------------------------------------------------------------------------

    def find(self, name: str, before: int | None = None) -> Node | None:
        """The stage of that name or number, among those before a position; the last one of several."""
        end = len(self.nodes) if before is None else before
        stage = instructions.find_stage(self.stages, name, before=end)
        return None if stage is None else self.nodes[stage.index]

    def target(self) -> Node:
        """The stage that is asked for. Raises NotFound."""
        name = self.work.options.target
        if not name:
            return self.nodes[-1]
        found = self.find(name)
        if found is None:
            from pyrun.runtime.oci.nearest import did_you_mean

            names = [str(stage.name) for stage in self.stages if stage.name]
            hint = did_you_mean(name, names) or (f"there are {', '.join(names)}" if names else "no stage has a name")
            raise NotFound(f"target stage '{name}'", f"{self.file.path} has none of that name", hint=hint)
        return found

    def needed(self, target: Node) -> list[Node]:
        """The target and the stages that it takes from, directly or not, in the order of the file."""
        wanted = {target.stage.index}
        for node in reversed(self.nodes):
            if node.stage.index in wanted:
                wanted.update(other.stage.index for other in self._uses(node))
        return [node for node in self.nodes if node.stage.index in wanted]

    def _uses(self, node: Node) -> Iterator[Node]:
        index = node.stage.index
        names = [self.global_word(node.stage.base.image, node.stage.base.at)]
        names += [name for step in node.stage.steps for name in making.stages_of(step)]
        for position, name in enumerate(names):
            if position == 0 and name.isdigit():
                continue  # FROM takes names only
            if self.work.named_context(name) is None:
                other = self.find(name, index)
                if other is not None:
                    yield other

    def done(self, node: Node) -> State | None:
        """The end state of another stage: waits, starting it if need be; None while probing, if it is not done."""
        if not node.finished.is_set():
            if self.work.probing:
                return None
            self.start(node)
            while not node.finished.wait(0.2):
                self.work.check()
        if node.error is not None or self.work.cancel.is_set():
            raise Cancelled("build", "another stage failed")
        return node.state

    def start(self, node: Node) -> None:
        """Lets a stage run in a thread, if it does not yet."""
        with self.work.lock:
            if node.thread is None and not node.finished.is_set():
                node.thread = Thread(target=node.run, name=f"stage {node.stage.index}", daemon=True)
                node.thread.start()

    def failed(self, node: Node, error: BaseException) -> None:
        """A stage has failed: the first one's error is the build's."""
        with self.work.lock:
            node.error = error
            if self.error is None or isinstance(self.error, Cancelled):
                self.error = error
            self.work.cancel.set()

    def join(self) -> None:
        """Waits for every stage that runs."""
        for node in self.nodes:
            if node.thread is not None:
                node.thread.join()

    # FROM ---------------------------------------------------------------------------------------------------------

    def platform_of(self, base: Any) -> str:
        """The platform that a FROM asks for, "" for this machine's (or --platform's)."""
        if base.platform:
            return str(platforms.parse(self.global_word(base.platform, base.at)))
        return str(self.asked) if self.work.options.platform else ""

    def base_state(self, name: str, platform: str, node: Node) -> State | None:
        """The state to start with; None while probing, if it is not there yet."""
        where = self.work.named_context(name)
        if where is not None:
            if not where.startswith((DOCKER_IMAGE, OCI_LAYOUT)):
                hint = "FROM scratch, then COPY --from=NAME / /"
                raise UsageError(f"FROM {name}", f"the build context {where} holds files, not an image", hint=hint)
            name = self.work.context_image(where)
        else:
            other = None if name.isdigit() else self.find(name, node.stage.index)
            if other is not None:
                state = self.done(other)
                if state is None:
                    return None
                self._at_once(node, name)
                return state.fork()
            if name == "scratch":
                chosen = platforms.parse(platform) if platform else self.asked
                self._at_once(node, name)
                return State.scratch((chosen.os, chosen.architecture, chosen.variant))
        vertex = self.work.progress.vertex(node.vertex_name(1, f"FROM {name}"))
        image = self._image(name, platform, vertex)
        return None if image is None else State.of_image(image)

    def _at_once(self, node: Node, name: str) -> None:
        """FROM a stage or scratch takes no work, but it has its number."""
        vertex = self.work.progress.vertex(node.vertex_name(1, f"FROM {name}"))
        if self.work.probing:
            vertex.cached()
        else:
            vertex.done()

    def _image(self, name: str, platform: str, vertex: Vertex) -> Any:
        try:
            image = self.work.image(name, platform, vertex)
        except BaseException as error:
            vertex.broken(error)
            raise
        if image is not None:
            if vertex.started:
                vertex.done()
            else:
                vertex.cached()
        return image

    def source(self, name: str, node: Node) -> Source | None:
        """What COPY --from=name or a bind mount's from= means; None while probing, if it is not there yet."""
        where = self.work.named_context(name)
        if where is not None:
            if not where.startswith((DOCKER_IMAGE, OCI_LAYOUT)):
                return None if self.work.probing and "://" in where else self.work.files_of(name, where)
            name = self.work.context_image(where)
        else:
            other = self.find(name, node.stage.index)
            if other is not None:
                state = self.done(other)
                if state is None:
                    return None
                title = f"stage '{other.stage.name or other.stage.index}'"
                return self.work.layered(title, tuple(layer.chain_id for layer in state.layers))
            later = self.find(name)
            if later is not None:
                raise UsageError(f"--from={name}", "that stage comes later in the file, or is this one")
            if name.isascii() and name.isdigit():
                raise NotFound(
                    f"--from={name}", f"there is no stage {name} before this one", hint="stages count from 0"
                )
        image = self.work.image(name, str(self.asked) if self.work.options.platform else "")
        return None if image is None else self.work.layered(f"image {name}", image.chain_ids)


def _trigger(text: str, image: str) -> list[Any]:
    """An ONBUILD trigger of a base image as an instruction. Raises UsageError."""
    try:
        return [instructions.one(text)]
    except UsageError as error:
        raise UsageError(f"ONBUILD trigger of {image}: {text}", error.why or error.what) from None
