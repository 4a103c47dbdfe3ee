# SPDX-License-Identifier: Apache-2.0
"""What a Dockerfile's instructions say, as Records; instructions.py makes them. Variables are still in the texts."""

from __future__ import annotations

from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .dockerfile import Heredoc, Instruction


class Step(Record):
    """Any instruction."""

    at: Instruction


class From(Step):
    """FROM [--platform=…] image [AS alias]; `alias` in lower case, `image` and `platform` not expanded."""

    image: str
    platform: str = ""
    alias: str = ""


class Arg(Step):
    """ARG name[=default] …"""

    pairs: tuple[tuple[str, str | None], ...]


class Env(Step):
    """ENV name=value …, or the old form ENV name value (`legacy`)."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


class Label(Step):
    """LABEL name=value …"""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


class Run(Step):
    """RUN; see script() for what runs. `mounts` are raw: parse_mount(text, lookup) each of them when the step runs."""

    args: tuple[str, ...]  # the exec form, or one shell command
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The command in shell form, without heredocs."""
        return self.args[0] if self.shell and self.args else ""


class FileStep(Step):
    """What COPY and ADD have in common. `sources` without heredocs; `link` and `parents` are switches."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool | None = None  # None: not said
    unpack: bool | None = None


class Copy(FileStep):
    """COPY [--from=…] source … destination"""


class Add(FileStep):
    """ADD source … destination; a source may be a URL or a git repository."""


class Cmd(Step):
    """CMD: `args` is the exec form, or one shell command; () for CMD []."""

    args: tuple[str, ...]
    shell: bool


class Entrypoint(Step):
    """ENTRYPOINT, as CMD."""

    args: tuple[str, ...]
    shell: bool


class Shell(Step):
    """SHELL ["executable", "argument"]"""

    args: tuple[str, ...]


class Expose(Step):
    """EXPOSE port[-port][/protocol] …, not expanded: see ports.exposed()."""

    ports: tuple[str, ...]


class User(Step):
    """USER user[:group]"""

    user: str


class Workdir(Step):
    """WORKDIR path"""

    path: str


class Volume(Step):
    """VOLUME path …"""

    paths: tuple[str, ...]


class StopSignal(Step):
    """STOPSIGNAL signal"""

    signal: str


class Healthcheck(Step):
    """HEALTHCHECK: `test` is docker's ("NONE",), ("CMD", …) or ("CMD-SHELL", text); times in ns, 0 for the default."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0

    def config(self) -> dict[str, Any]:
        """The Healthcheck of an image's config, in docker's field names; what was not given is left out."""
        times = {
            "Interval": self.interval_ns,
            "Timeout": self.timeout_ns,
            "StartPeriod": self.start_period_ns,
            "StartInterval": self.start_interval_ns,
            "Retries": self.retries,
        }
        return {"Test": list(self.test), **{name: value for name, value in times.items() if value}}


class Onbuild(Step):
    """ONBUILD: `trigger` is the text for the image's config, heredocs included; `step` what it means."""

    trigger: str
    step: Step


class Maintainer(Step):
    """MAINTAINER name, deprecated."""

    name: str


class Stage(Record):
    """FROM and the instructions up to the next one. `name` is "" without AS."""

    index: int
    name: str
    base: From
    steps: tuple[Step, ...]


class Script(Record):
    """What a RUN starts: `args` (of the shell, if `shell`), and a file that has to be there for it, if any."""

    args: tuple[str, ...]
    shell: bool
    file: tuple[str, str] | None = None  # (name, content): executable, as /dev/pipes/<name>
