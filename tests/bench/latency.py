# SPDX-License-Identifier: Apache-2.0
"""How long one command takes: run, with and without a network, the first run of all, exec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.clock import Failed, call, compare
from bench.engines import IMAGE
from bench.report import Aim, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.engines import Engine, Pyrun

HELD = "held"  # the container that exec enters


def rows(pyrun: Pyrun, docker: Engine, podman: Engine, rounds: int) -> Iterator[Row]:
    """One after the other, each measured when it is asked for."""
    everyone = (pyrun, docker, podman)
    title = "`run --rm IMG true`, bridge network"
    yield commands(title, everyone, ("run", "--rm", IMAGE, "true"), rounds, {"docker": Aim(0.25), "podman": Aim(0.25)})
    words = ("run", "--rm", "-p", "18080:80", IMAGE, "true")
    yield commands("`run --rm -p 18080:80 IMG true`", everyone, words, rounds, {"docker": Aim(0.25)})
    words = ("run", "--rm", "--network", "none", IMAGE, "true")
    aims = {"docker": Aim(0.25), "podman": Aim(0.35)}
    yield commands("`run --rm --network none IMG true`", everyone, words, rounds, aims)
    yield first_run(pyrun, docker, rounds)
    yield execs(everyone, rounds)


def commands(title: str, engines: tuple[Engine, ...], words: tuple[str, ...], rounds: int, aims: dict[str, Aim]) -> Row:
    """The same words for every engine."""
    return Row(title, "ms", compare({engine.name: timed(engine, words) for engine in engines}, rounds), aims)


def timed(engine: Engine, words: tuple[str, ...]) -> Callable[[], float]:
    """A job for compare(): milliseconds of one command, which must succeed without a word."""
    argv = engine.argv(*words)

    def job() -> float:
        result = call(argv, env=engine.sandbox.env).ok()
        if result.output:
            raise Failed(f"{' '.join(argv)} should be silent, and says: {result.output}")
        return result.seconds * 1000

    return job


def first_run(pyrun: Pyrun, docker: Engine, rounds: int) -> Row:
    """pyrun with no monitor and no keeper running, against docker with its daemons running."""
    words = ("run", "--rm", IMAGE, "true")
    run = timed(pyrun, words)

    def cold() -> float:
        pyrun.stop()
        return run()

    samples = compare({"pyrun": cold, "docker": timed(docker, words)}, rounds)
    return Row("first `run` of all (no monitor running)", "ms", samples, {"docker": Aim(1.5)})


def execs(engines: tuple[Engine, ...], rounds: int) -> Row:
    """exec in a container that sleeps."""
    for engine in engines:
        engine("run", "-d", "--name", HELD, IMAGE, "sleep", "86400")
    row = commands("`exec c true`", engines, ("exec", HELD, "true"), rounds, {"docker": Aim(0.4)})
    for engine in engines:
        engine.remove(HELD)
    return row
