# SPDX-License-Identifier: Apache-2.0
"""COPY and ADD as steps: where the files come from, under which keys the result is remembered.

Files out of a stage or an image have two keys: one of the stage's chain id, which needs no file to be read, and one of
the files' contents, which holds when another part of the stage has changed. Files of the context have the second only.
"""

from __future__ import annotations

import os

from pyrun.rootfs.build import giturl
from pyrun.rootfs.build import steps as s
from pyrun.rootfs.build.copy import CopyRequest, apply, inline, plan
from pyrun.rootfs.build.source import Tree
from pyrun.rootfs.build.substitute import expanded
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.upper import take_root

from .cache import key_of
from .making import LOCAL_SOURCE, REGULAR, Prepared, owner_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrun.rootfs.build.copy import CopyPlan
    from pyrun.rootfs.claims import Scratch

    from .graph import Node
    from .progress import Vertex
    from .stage import State

URLS = ("http://", "https://")


def prepare_copy(step: s.FileStep, state: State, node: Node) -> Prepared | None:
    """COPY or ADD; None while probing, when its source is a stage or an image that is not there, or has to be fetched.

    Raises NotFound for a source that is not there, UsageError.
    """
    step = expanded(step, state.lookup)
    copy = _Copy(step, state, node)
    if not copy.find():
        return None
    plans = None if copy.fast else copy.plans()
    if plans is not None:
        copy.planned = plans
    keys = ((copy.fast_key,) if copy.fast else ()) + (copy.slow_key,)
    return Prepared(
        step.at.original,
        copy.created_by(),
        keys,
        copy.fill,
        kind=REGULAR if step.from_ else LOCAL_SOURCE,
        again=copy.keys_again,
    )


class _Copy:
    """One instruction: its parts, each from one tree."""

    def __init__(self, step: s.FileStep, state: State, node: Node) -> None:
        self.step = step
        self.state = state
        self.node = node
        self.work = node.work
        self.parent = state.chain_id
        destination = step.destination
        if not destination:
            raise step.at.error(f"{step.at.name}: the destination is empty", "is a variable not set?")
        self.destination = state.path(destination)
        # with --link nothing of the layers below is looked at: the layer is the same above any base
        below = () if step.link else tuple(layer.chain_id for layer in state.layers)
        self.dirs = self.work.dirs(below)
        every = self.work.dirs(layer.chain_id for layer in state.layers)
        self.owner = owner_of(step.chown, every) if step.chown else None
        self.parts: list[tuple[Tree, CopyRequest]] = []
        self.planned: list[CopyPlan] | None = None
        self.fast: dict[str, Any] | None = None

    def request(self, sources: Sequence[str], **more: Any) -> CopyRequest:
        """The sources with the flags of the instruction."""
        fields = {
            "owner": self.owner,
            "chmod": self.step.chmod,
            "parents": self.step.parents,
            "excludes": self.step.excludes,
            **more,
        }
        return CopyRequest(tuple(sources), self.destination, **fields)

    def find(self) -> bool:
        """Fills `parts`; False while probing, when something is missing."""
        step = self.step
        several = len(step.sources) + len(step.heredocs) > 1
        if several and not self.destination.endswith("/") and not self._into_a_directory():
            hint = f"write {step.destination}/"
            raise step.at.error(f"{step.at.name} of several sources needs a destination that ends with /", hint)
        local = [source for source in step.sources if not _is_remote(step, source)]
        remote = [source for source in step.sources if _is_remote(step, source)]
        if local:
            source = self.work.context_source()
            if step.from_:
                found = self.node.graph.source(step.from_, self.node)
                if found is None:
                    return False
                source = found
            unpack = isinstance(step, s.Add) and step.unpack is not False
            request = self.request(local, unpack=unpack)
            self.parts.append((source.tree, request))
            if step.from_ and source.dirs and not remote and not step.heredocs:
                self.fast = {"from": source.chain_id, "request": request.asdict()}
        if remote:
            if self.work.probing:
                return False
            for url in remote:
                self.parts.append(self._fetched(url))
        for heredoc in step.heredocs:
            tree = inline(heredoc.name, os.fsencode(heredoc.text()), scratch=self.work.scratch())
            self.work.closing(tree.close)
            self.parts.append((tree, self.request([heredoc.name])))
        return True

    def _into_a_directory(self) -> bool:
        """Whether the image has a directory there: the reference asks for the slash all the same, BuildKit does not."""
        with Stack(list(reversed(self.dirs))) as image:
            return image.directory(image.resolve(tuple(os.fsencode(self.destination).split(b"/")))) is not None

    def _fetched(self, url: str) -> tuple[Tree, CopyRequest]:
        """ADD of a URL or of a git repository."""
        step = self.step
        repository = giturl.parse(url)
        if repository is not None:
            from pyrun.rootfs.build import git, remote

            if step.checksum:
                repository = repository.replace(commit=step.checksum)
            lent = next((one for one in self.work.options.ssh if one.id == "default"), None)
            top = git.clone(
                repository, scratch=self.work.scratch(), keep_git_dir=step.keep_git_dir, trusted=False,
                agent="" if lent is None else self.work.agent(lent),
            )  # fmt: skip
            tree = Tree.directory(top, f"the repository {remote.shown(repository.remote)}")
            self.work.closing(tree.close)
            return tree, self.request(["."])
        from pyrun.rootfs.build import remote

        found = remote.fetch(url, step.checksum, scratch=self.work.scratch())
        if not found.name and self.destination.endswith("/"):
            what = f"ADD {giturl.masked(url)}: the URL has no file name"
            raise step.at.error(what, "end the destination with a file's name")
        directory, name = os.path.dirname(found.path), found.name or "content"
        os.rename(found.path, os.path.join(directory, name))
        tree = Tree.directory(directory, giturl.masked(url))
        self.work.closing(tree.close)
        return tree, self.request([_literal(name)], unpack=bool(step.unpack))

    # Keys ---------------------------------------------------------------------------------------------------------

    def plans(self) -> list[CopyPlan]:
        """What will be written; raises for what is not there."""
        with Stack(list(reversed(self.dirs))) as target:
            return [plan(tree, request, target) for tree, request in self.parts]

    def fast_key(self) -> str:
        """Of the stage's layers as a whole."""
        return key_of(
            "copy-from", {"parent": self.parent, "link": self.step.link, "epoch": self.work.epoch, **(self.fast or {})}
        )

    def slow_key(self) -> str:
        """Of the files' contents."""
        if self.planned is None:
            self.planned = self.plans()
        return self._content_key()

    def _content_key(self) -> str:
        digests = [one.digest() for one in self.planned or ()]
        inputs = {"parent": self.parent, "files": digests, "link": self.step.link, "epoch": self.work.epoch}
        return key_of("copy", inputs)

    def keys_again(self) -> tuple[str, ...]:
        """After fill(): what was really written, should the context have changed meanwhile."""
        return (*((self.fast_key(),) if self.fast else ()), self._content_key())

    # Making -------------------------------------------------------------------------------------------------------

    def fill(self, scratch: Scratch, _: tuple[str, ...], __: Vertex) -> None:
        """Writes the files."""
        if self.planned is None:
            self.planned = self.plans()
        take_root(scratch.fs, self.dirs)
        for one in self.planned:
            self.work.check()
            apply(one, scratch.fs, self.dirs, epoch=self.work.epoch)

    def created_by(self) -> str:
        """The line of history, in BuildKit's form."""
        step = self.step
        flags = [f"--chown={step.chown}"] if step.chown else []
        flags += [f"--chmod={step.chmod}"] if step.chmod else []
        flags += ["--link"] if step.link else []
        names = [*map(giturl.masked, step.sources), *(f"<<{heredoc.name}" for heredoc in step.heredocs)]
        return " ".join([step.at.name, *flags, *names, step.destination])


def _is_remote(step: s.FileStep, source: str) -> bool:
    """Whether an ADD fetches it: a URL, or a repository (`github.com/…` may as well be a directory: it is one here)."""
    if not isinstance(step, s.Add) or step.from_:
        return False
    if source.startswith(URLS):
        return True
    repository = giturl.parse(source) if ":" in source else None
    return repository is not None and not repository.maybe_local


def _literal(name: str) -> str:
    """A file name in which no character is a wildcard."""
    return "".join(f"\\{char}" if char in "*?[\\" else char for char in name)
