# SPDX-License-Identifier: Apache-2.0
"""Which words of which instruction have their variables replaced, and with what.

ENV LABEL       names and values, all with what was set before the instruction: `ENV a=1 b=$a` has the old a
ARG             defaults, one after the other: `ARG a=1 b=$a` has the new a
COPY ADD        sources, destination, --chown, --chmod, --checksum; unquoted heredocs, whose quotes stay
FROM            the image and --platform, with the ARGs before the first FROM only
USER WORKDIR VOLUME STOPSIGNAL EXPOSE    their words
RUN             the values of --mount when it is parsed (parse_mount), never the command
CMD ENTRYPOINT SHELL HEALTHCHECK ONBUILD MAINTAINER    nothing: the shell does it, or nobody
"""

from __future__ import annotations

from . import expand
from .quantities import number
from .steps import Add, Copy, Env, FileStep, From, Label, StopSignal, User, Volume, Workdir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from .expand import Lookup
    from .steps import Arg, Expose, Step

    AnyStep = TypeVar("AnyStep", bound=Step)
    Word = Callable[[str], str]

PROTOCOLS = ("tcp", "udp", "sctp")


def expanded(step: AnyStep, lookup: Lookup, *, used: set[str] | None = None) -> AnyStep:
    """`step` with its variables replaced by what `lookup` knows; itself if its instruction expands nothing.

    ARG and EXPOSE have functions of their own: resolve_args() and exposed(). `used` gets the names that were asked for.
    Raises DockerfileError with the step's line.
    """
    kind = next((kind for kind in _WORDS if isinstance(step, kind)), None)
    if kind is None:
        return step
    try:
        changes = _WORDS[kind](step, lambda text: expand.expand(text, lookup, escape=step.at.escape, used=used))
        if isinstance(step, FileStep) and step.heredocs:
            # always \ here: what is in a heredoc is another language
            changes["heredocs"] = tuple(
                heredoc.replace(content=expand.raw(heredoc.content, lookup, used=used)) if heredoc.expand else heredoc
                for heredoc in step.heredocs
            )
    except expand.ExpandError as error:
        raise step.at.error(str(error), error.hint) from None
    return step.replace(**changes)


def _pairs(step: Any, word: Word) -> dict[str, Any]:
    return {"pairs": tuple((word(name), word(value)) for name, value in step.pairs)}


def _files(step: Any, word: Word) -> dict[str, Any]:
    return {
        "sources": tuple(word(source) for source in step.sources),
        "destination": word(step.destination),
        "chown": word(step.chown),
        "chmod": word(step.chmod),
        "checksum": word(step.checksum),
    }


_WORDS: dict[type[Step], Callable[[Any, Word], dict[str, Any]]] = {
    Add: _files,
    Copy: _files,
    Env: _pairs,
    From: lambda step, word: {"image": word(step.image), "platform": word(step.platform)},
    Label: _pairs,
    StopSignal: lambda step, word: {"signal": word(step.signal)},
    User: lambda step, word: {"user": word(step.user)},
    Volume: lambda step, word: {"paths": tuple(word(path) for path in step.paths)},
    Workdir: lambda step, word: {"path": word(step.path)},
}


def resolve_args(
    step: Arg,
    lookup: Lookup,
    given: Mapping[str, str],
    inherited: Mapping[str, str] | None = None,
    *,
    used: set[str] | None = None,
) -> tuple[tuple[str, str | None], ...]:
    """The values that an ARG instruction declares, None for those that stay unset.

    Args:
        lookup: what is set before it: the stage's ENV and ARG, or for an ARG before FROM the ones before it.
        given: --build-arg, which wins over the default.
        inherited: in a stage, the ARGs before the first FROM and the predefined ones: for an ARG without a default.
    """
    values: dict[str, str | None] = {}

    def known(name: str) -> str | None:
        own = values.get(name)
        return lookup(name) if own is None else own

    for name, default in step.pairs:
        if name in given:
            values[name] = given[name]
        elif default is None:
            values[name] = (inherited or {}).get(name)
        else:
            try:
                values[name] = expand.expand(default, known, escape=step.at.escape, used=used)
            except expand.ExpandError as error:
                raise step.at.error(str(error), error.hint) from None
    return tuple(values.items())


def exposed(step: Expose, lookup: Lookup, *, used: set[str] | None = None) -> tuple[str, ...]:
    """The ports of EXPOSE as they are in an image's config: "80/tcp", ranges one by one. Raises DockerfileError."""
    found: dict[str, None] = {}
    for word in step.ports:
        try:
            texts = expand.expand_words(word, lookup, escape=step.at.escape, used=used)
        except expand.ExpandError as error:
            raise step.at.error(str(error), error.hint) from None
        for text in texts:
            try:
                found |= dict.fromkeys(ports(text))
            except ValueError as error:
                raise step.at.error(f"EXPOSE {text}: {error}", "such as 80, 53/udp or 8000-8010") from None
    return tuple(found)


def ports(text: str) -> list[str]:
    """["8000/udp", "8001/udp"] for "8000-8001/udp". As BuildKit, an address or host port before a colon is ignored.

    Raises ValueError.
    """
    port, _, protocol = text.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise ValueError(f"the protocol is one of {', '.join(PROTOCOLS)}")
    first, dash, last = port.partition("-")
    try:
        begin = number(first, most=65535)
        end = number(last, most=65535) if dash else begin
    except ValueError:
        raise ValueError("a port is a number up to 65535") from None
    if end < begin:
        raise ValueError("the range ends before it begins")
    return [f"{value}/{protocol}" for value in range(begin, end + 1)]
