# SPDX-License-Identifier: Apache-2.0
"""State: what a stage is at one point: its layers, the image config as it stands, the history, the ARGs in scope.

The config keeps docker's JSON names (Env, Cmd, WorkingDir …), so that what an image had and pyrun does not know stays
in it. A stage that is built FROM another starts with a copy of its state.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from pyrun.rootfs.image import Image

    from .cache import BuiltLayer

    Config = dict[str, Any]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
COMMENT = "pyrun build"  # in the history, where BuildKit's says buildkit.dockerfile.v0
# of a base image's config document: what is computed anew, and docker's own notes of how that image was made
_DROPPED = ("config", "rootfs", "history", "created", "container", "container_config", "docker_version", "id", "parent")


class State:
    """One stage, changed by its instructions one after another. Not for several threads at a time.

    layers      lowest first; those of the base image have no `created`
    document    the rest of the image's config document: architecture, os, variant, author …
    args        ARGs in scope, in the order they were declared; None: declared, without a value
    seen        those of them that are seen: the ones with a value that no ENV has set since
    hidden      build arguments that RUN sees without an ARG and that nothing depends on: the proxies
    """

    def __init__(self, document: Mapping[str, Any], config: Config) -> None:
        self.document = dict(document)
        self.config = config
        self.layers: tuple[BuiltLayer, ...] = ()
        self.history: list[dict[str, Any]] = []
        self.args: dict[str, str | None] = {}
        self.seen: dict[str, str] = {}
        self.hidden: dict[str, str] = {}
        self.cmd_is_set = False
        self._env: dict[str, str] | None = None
        if "PATH" not in self.env:
            self.set_env("PATH", DEFAULT_PATH)  # as BuildKit: a RUN must find its programs, and so the image has it too

    @classmethod
    def scratch(cls, platform: tuple[str, str, str]) -> State:
        """An empty root, for (os, architecture, variant)."""
        system, architecture, variant = platform
        document = {"os": system, "architecture": architecture, **({"variant": variant} if variant else {})}
        return cls(document, {"WorkingDir": "/"})

    @classmethod
    def of_image(cls, image: Image) -> State:
        """Where a stage FROM this image starts."""
        from .cache import BuiltLayer

        raw = image.raw_config
        document = {key: value for key, value in raw.items() if key not in _DROPPED}
        state = cls(document, _copy(raw.get("config") or {}))
        state.layers = tuple(
            BuiltLayer(layer.digest, layer.size, layer.media_type, layer.diff_id, layer.chain_id)
            for layer in image.layers
        )
        state.history = [dict(item) for item in raw.get("history") or ()]
        _complete_history(state.history, len(state.layers))
        return state

    def fork(self) -> State:
        """A stage that begins where this one ended: ARGs are inherited, and CMD counts as the base's."""
        state = State(self.document, _copy(self.config))
        state.layers = self.layers
        state.history = [dict(item) for item in self.history]
        state.args = dict(self.args)
        state.seen = dict(self.seen)
        state.hidden = self.hidden
        return state

    # Variables ----------------------------------------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        """ENV as a dict; not to be changed."""
        if self._env is None:
            self._env = {}
            for item in self.config.get("Env") or ():
                name, _, value = item.partition("=")
                self._env[name] = value
        return self._env

    def set_env(self, name: str, value: str) -> None:
        """ENV: a name that is there already keeps its place."""
        self.seen.pop(name, None)
        env = dict(self.env)
        env[name] = value
        self.config["Env"] = [f"{key}={item}" for key, item in env.items()]
        self._env = env

    def set_arg(self, name: str, value: str | None) -> None:
        """ARG: from here on it is what is seen, also in place of an ENV of that name.

        So does BuildKit, old and new, whatever the reference says.
        """
        self.args[name] = value
        if value is not None:
            self.seen[name] = value

    def lookup(self, name: str) -> str | None:
        """A variable as instructions see it: of ENV and ARG the later one."""
        value = self.seen.get(name)
        return self.env.get(name) if value is None else value

    # Places in it -------------------------------------------------------------------------------------------------

    @property
    def chain_id(self) -> str:
        """Stands for the whole file system; "" for an empty one."""
        return self.layers[-1].chain_id if self.layers else ""

    @property
    def workdir(self) -> str:
        """The working directory, "/" if none was set."""
        return self.config.get("WorkingDir") or "/"

    @property
    def user(self) -> str:
        """USER, "" for root."""
        return self.config.get("User") or ""

    @property
    def shell(self) -> tuple[str, ...]:
        """What a command in shell form is run by."""
        return tuple(self.config.get("Shell") or DEFAULT_SHELL)

    def path(self, text: str) -> str:
        """`text` as an absolute path, from the working directory, without "." and ".."; a trailing slash stays."""
        return absolute(self.workdir, text)

    # Committing ---------------------------------------------------------------------------------------------------

    def commit(self, created_by: str, layer: BuiltLayer | None = None) -> None:
        """One more line of history, with a layer or without; its time is filled in by document_of()."""
        entry: dict[str, Any] = {"created_by": created_by, "comment": COMMENT}
        if layer is None:
            entry["empty_layer"] = True
        else:
            self.layers = (*self.layers, layer)
            entry["created"] = layer.created
        author = self.document.get("author")
        if author:
            entry["author"] = author
        self.history.append(entry)

    def image(self, labels: Mapping[str, str], epoch: str) -> dict[str, Any]:
        """The image's config document: `created` and the history's times come from the layers, as BuildKit's do,
        so that building the same once more gives the same id.

        epoch: RFC 3339, the time of everything that this build adds; "" for the real ones.
        """
        config = _copy(self.config)
        if labels:
            config["Labels"] = {**(config.get("Labels") or {}), **labels}
        config = {key: value for key, value in config.items() if value not in (None, "", [], {})}
        history = [dict(item) for item in self.history]
        _fill_times(history, epoch)
        created = epoch or (history[-1].get("created") if history else "")
        return {
            **self.document,
            **({"created": created} if created else {}),
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            "history": history,
        }


def absolute(directory: str, text: str) -> str:
    """`text` below `directory`, normalised as path_resolution(7) without symlinks; a trailing slash stays."""
    parts: list[str] = []
    for part in ("" if text.startswith("/") else directory).split("/") + text.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    keeps_slash = parts and (text.endswith("/") or text.rpartition("/")[2] == ".")
    return "/" + "/".join(parts) + ("/" if keeps_slash else "")


def _copy(config: Mapping[str, Any]) -> Config:
    """A copy that may be changed at every level that instructions change."""
    return {
        key: dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
        for key, value in config.items()
    }


def _complete_history(history: list[dict[str, Any]], layers: int) -> None:
    """A base image whose history says less (or more) than its layers: docker and BuildKit put it right so too."""
    said = sum(1 for item in history if not item.get("empty_layer"))
    history.extend({"created_by": "", "comment": "base image"} for _ in range(layers - said))
    for item in reversed(history):
        if said <= layers:
            break
        if not item.get("empty_layer"):
            item["empty_layer"] = True
            said -= 1


def _fill_times(history: list[dict[str, Any]], epoch: str) -> None:
    """An instruction without a layer takes the time of the layer before it, or of the first new one after it."""
    before = ""
    for position, item in enumerate(history):
        ours = item.get("comment") == COMMENT and "created" not in item
        if ours:
            item["created"] = epoch or _next_time(history[position:]) or before
            if not item["created"]:
                del item["created"]
        before = item.get("created") or before


def _next_time(history: Sequence[Mapping[str, Any]]) -> str:
    return next((str(item["created"]) for item in history if item.get("created")), "")


def quoted(words: Iterable[str]) -> str:
    """["a" "b"]: how docker writes an exec form into the history."""
    return "[" + " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words) + "]"
