# SPDX-License-Identifier: Apache-2.0
"""`pyrun build` as tests call it: a Dockerfile and files in, the image's config and what was cached out.

build = Builds(pyrun, tmp_path)
made = build("FROM busybox\nRUN true\n", files={"a.txt": "x"})
made.config["Cmd"]; made.ran; made.cached; build.sh(made.id, "cat /a.txt")
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import buildtrees

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli import Pyrun, Result


@dataclass(frozen=True)
class Made:
    """A build that went well: the image's config document, and the steps by what became of them."""

    id: str
    document: dict[str, Any]
    ran: tuple[str, ...]  # "RUN true": without the place in brackets
    cached: tuple[str, ...]
    err: str

    @property
    def config(self) -> dict[str, Any]:
        """Cmd, Env, …"""
        found: dict[str, Any] = self.document["config"]
        return found

    @property
    def history(self) -> list[str]:
        """What each entry of the history says."""
        return [str(item.get("created_by", "")) for item in self.document["history"]]


class Builds:
    """Builds in one context directory, with one `pyrun`."""

    def __init__(self, pyrun: Pyrun, directory: Path) -> None:
        self.pyrun = pyrun
        self.context = directory / "context"
        self.context.mkdir(exist_ok=True)
        self._ids = directory / "iid"

    def write(self, files: Mapping[str, buildtrees.Content]) -> None:
        """Files of the context, as buildtrees.make() takes them."""
        buildtrees.make(self.context, files)

    def run(
        self,
        dockerfile: str,
        *flags: str,
        files: Mapping[str, buildtrees.Content] | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 120,
    ) -> Result:
        """The call, whatever comes of it."""
        (self.context / "Dockerfile").write_text(dockerfile)
        self.write(files or {})
        return self.pyrun("build", "--progress", "plain", *flags, str(self.context), env=env, timeout=timeout)

    def __call__(
        self,
        dockerfile: str,
        *flags: str,
        files: Mapping[str, buildtrees.Content] | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 120,
    ) -> Made:
        """A build that has to go well."""
        self._ids.unlink(missing_ok=True)
        result = self.run(dockerfile, "--iidfile", str(self._ids), *flags, files=files, env=env, timeout=timeout)
        assert result.rc == 0, str(result)
        image_id = self._ids.read_text()
        ran, cached = steps(result.err)
        return Made(image_id, self.document(image_id), ran, cached, result.err)

    def fails(self, dockerfile: str, *flags: str, files: Mapping[str, buildtrees.Content] | None = None) -> Result:
        """A build that has to fail."""
        result = self.run(dockerfile, *flags, files=files)
        assert result.rc != 0, str(result)
        return result

    def document(self, image_id: str) -> dict[str, Any]:
        """The config of an image, as it is in the store."""
        path = Path(self.pyrun.paths.data) / "images/blobs/sha256" / image_id.removeprefix("sha256:")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def manifest(self, image_id: str) -> str:
        """The digest of the image's manifest."""
        index = json.loads((Path(self.pyrun.paths.data) / "images/index.json").read_text())
        return next(
            str(item["digest"]) for item in index["manifests"] if item["annotations"]["pyrun.config-digest"] == image_id
        )

    def sh(self, image_id: str, command: str) -> str:
        """What a shell command in the image prints."""
        return self.pyrun.ok("run", "--rm", "--network", "none", "--entrypoint", "", image_id, "sh", "-c", command)


def steps(plain: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what was run, what was cached) in the output of --progress plain: instructions, FROM left out."""
    names: dict[str, str] = {}
    cached = []
    for line in plain.splitlines():
        number, _, rest = line.partition(" ")
        if number.startswith("#") and rest.startswith("[") and not rest.startswith("[internal]"):
            names[number] = rest.partition("] ")[2]
        elif rest == "CACHED":
            cached.append(number)
    wanted = {number: name for number, name in names.items() if not name.startswith("FROM ")}
    return (
        tuple(name for number, name in wanted.items() if number not in cached),
        tuple(name for number, name in wanted.items() if number in cached),
    )
