# SPDX-License-Identifier: Apache-2.0
"""A hundred detached containers: how fast they start, and what they cost outside themselves.

Blocks of starts alternate between the engines until each has all of its containers; then everything that runs outside
of the containers is weighed, by the engine that it belongs to.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from bench.clock import Failed, reap_orphans, together
from bench.engines import IMAGE
from bench.report import Aim, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.engines import Engine

SLEEP = ("sleep", "86400")
AT_A_TIME = 8
#: whose process it is, by its first two arguments; what is not listed fails the bench, so that nothing is forgotten
OWNERS = (
    ("docker", re.compile(r"^\S*(dockerd|containerd|containerd-shim\S*|docker-proxy|docker-init)( |$)")),
    ("podman", re.compile(r"^\S*(conmon|podman|aardvark-dns|netavark|catatonit)( |$)")),
    ("pyrun", re.compile(r"^(pyrun\S*( |$)|pyrun: |\S*python\S* .*pyrun\.runtime\.)")),
)


def rows(pyrun: Engine, docker: Engine, podman: Engine, count: int) -> Iterator[Row]:
    """Starts one after another, weighs, removes; then eight at a time; then with a published port each.

    Podman, which has no daemon to burden, is only in the first part: the others take long enough.
    """
    before = weigh_all((pyrun, docker, podman))
    yield started(f"{count} × `run -d`, one after another", (pyrun, docker, podman), count, blocks=5, at_a_time=1)
    yield from memory("", (pyrun, docker, podman), count, before)
    podman.remove_all()
    rest = (pyrun, docker)
    yield removed(rest, count)
    yield started(f"{count} × `run -d`, {AT_A_TIME} at a time", rest, count, blocks=2, at_a_time=AT_A_TIME)
    removed(rest, count)
    started("", rest, count, blocks=2, at_a_time=AT_A_TIME, flags=("-p", "80"))
    yield from memory(", a port published by each", rest, count, before)
    removed(rest, count)


def started(
    title: str, engines: Sequence[Engine], count: int, *, blocks: int, at_a_time: int, flags: tuple[str, ...] = ()
) -> Row:
    """Containers per second of each block of `count` / `blocks` starts."""
    size = count // blocks
    samples: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for engine in engines:  # a monitor that has been idle for a minute is gone
        engine("run", "--rm", IMAGE, "true")
    for block in range(blocks):
        first = block % len(engines)
        for engine in (*engines[first:], *engines[:first]):
            reap_orphans()
            time.sleep(0.5)
            argv = engine.argv("run", "-d", *flags, IMAGE, *SLEEP)
            samples[engine.name].append(size / together([argv] * size, at_a_time, env=engine.sandbox.env))
    for engine in engines:
        running = len(engine("ps", "-q").output.split())
        if running != size * blocks:
            raise Failed(f"{engine.name} runs {running} containers, not {size * blocks}")
    return Row(title, "containers/s", samples, {"docker": Aim(4.0, at_least=True)})


def removed(engines: Sequence[Engine], count: int) -> Row:
    """One `rm -f` of them all."""
    samples = {engine.name: [engine.remove_all()] for engine in engines}
    return Row(f"`rm -f` of {count} running containers", "s", samples, {})


def memory(title: str, engines: Sequence[Engine], count: int, before: dict[str, float]) -> Iterator[Row]:
    """MB per container: all that the engine runs outside of its containers; and only what these have added."""
    time.sleep(3)  # shims and finishers settle
    after = weigh_all(engines)
    whole = {engine.name: [after[engine.name] / count] for engine in engines}
    added = {engine.name: [(after[engine.name] - before[engine.name]) / count] for engine in engines}
    yield Row(f"memory outside each of {count} containers{title}", "MB", whole, {"docker": Aim(0.25)})
    yield Row(f"the same without what ran before the first one{title}", "MB", added, {})


def weigh_all(engines: Sequence[Engine]) -> dict[str, float]:
    """PSS in MB (10^6 bytes) of the processes of each engine that are in no container."""
    weights = {name: 0.0 for name, _ in OWNERS}
    for pid, text in outside():
        owner = next((name for name, pattern in OWNERS if pattern.search(text)), "")
        if not owner:
            raise Failed(f"process {pid} belongs to no engine: {text}")
        weights[owner] += pss(pid)
    return {engine.name: weights[engine.name] for engine in engines}


def outside() -> Iterator[tuple[int, str]]:
    """(pid, command line) of the processes of this PID namespace (containers have their own), without this one."""
    reap_orphans()
    own = os.readlink("/proc/self/ns/pid")
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            if os.readlink(f"/proc/{name}/ns/pid") == own:
                with open(f"/proc/{name}/cmdline", encoding="utf-8", errors="replace") as file:
                    yield int(name), file.read().replace("\0", " ").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone meanwhile


def pss(pid: int) -> float:
    """Proportional set size in MB, proc(5) smaps_rollup."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith("Pss:"))
