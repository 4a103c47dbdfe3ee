# SPDX-License-Identifier: Apache-2.0
"""pyrun beside docker, podman and runc. Started by scripts/bench, which says more and installs what this needs.

This file runs twice: on the host, where it makes namespaces, checks what is left behind and writes docs/performance.md;
and inside of them (--inside), where it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

sys.dont_write_bytecode = True  # the checkout may belong to somebody else than root
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from bench import bundles, checks, crowd, images, latency, report  # noqa: E402 (only now can it be found)
from bench.clock import Failed, call  # noqa: E402
from bench.engines import Docker, Podman, Pyrun  # noqa: E402
from bench.sandbox import Host, Sandbox  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from bench.engines import Engine
    from bench.report import Row

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
DOCUMENT = f"{CHECKOUT}/docs/performance.md"
SECTIONS = ("run", "memory", "oci", "images")


def main() -> int:
    """0 when everything was measured and nothing was left behind, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("what", nargs="?", default="all", choices=("all", *SECTIONS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--pyrun", default="/usr/local/bin/pyrun")
    parser.add_argument("--materials", default="", help=argparse.SUPPRESS)
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--tag", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        return measure(options) if options.inside else host(options)
    except KeyboardInterrupt:
        return 130


def interrupted(*_: object) -> NoReturn:
    """A signal handler, of both halves: once only, or the next signal would interrupt the cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def host(options: argparse.Namespace) -> int:
    """The outer half: see sandbox.Host."""
    arguments = [options.what, "--rounds", str(options.rounds), "--count", str(options.count)]
    arguments += ["--pyrun", os.path.abspath(options.pyrun), "--materials", options.materials]
    with Host() as outer:
        code = outer.run_inside(os.path.realpath(__file__), arguments)
        print_results(outer.directory, None if options.no_write or code else DOCUMENT)
        outer.remove_cgroups()
        left = outer.leftovers()
    for line in left:
        print(f"scripts/bench: left behind: {line}", file=sys.stderr)
    return code or (1 if left else 0)


def print_results(directory: str, document: str | None) -> None:
    """The tables on standard output, and into the document."""
    for section in SECTIONS:
        try:
            with open(f"{directory}/{section}.json", encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            continue
        text = report.table([report.row_from(row) for row in found["rows"]], found["facts"])
        print(f"\n{text}", flush=True)
        if document is not None:
            report.write(document, section, text)


# ---- inside


def measure(options: argparse.Namespace) -> int:
    """The inner half, PID 1 of its namespace: everything is stopped at the end, and looked for."""
    sandbox = Sandbox(options.inside, options.tag)
    sandbox.prepare()
    engines: list[Engine] = []
    code = 0
    try:
        sections(options, sandbox, engines)
    except Failed as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        code = 1
    finally:
        for finish in [act for engine in engines for act in (engine.remove_all, engine.stop)]:
            try:
                finish()
            except (Failed, ProcessLookupError) as error:  # a signal may have ended dockerd already
                print(f"scripts/bench: {error}", file=sys.stderr)
                code = 1
    for line in sandbox.processes():
        print(f"scripts/bench: left behind: process {line}", file=sys.stderr)
        code = 1
    return code


def sections(options: argparse.Namespace, sandbox: Sandbox, engines: list[Engine]) -> None:
    """Measures what was asked for, one section after the other; `engines` gets those that were started."""
    wanted = SECTIONS if options.what == "all" else (options.what,)
    facts = [*report.machine(), report.today()]
    if wanted != ("oci",):
        pyrun, docker, podman = Pyrun(sandbox, options.pyrun), Docker(sandbox), Podman(sandbox)
        for engine in (pyrun, docker, podman):
            engines.append(engine)
            engine.start()
            checks.check(engine)
            facts.append(engine.version())
            print(f"{engine.name} is ready: {facts[-1]}", flush=True)
        if "run" in wanted:
            save(sandbox, "run", latency.rows(pyrun, docker, podman, options.rounds), facts)
        if "memory" in wanted:
            pyrun.stop()  # what ran before the first container: nothing
            save(sandbox, "memory", crowd.rows(pyrun, docker, podman, options.count), facts)
        if "images" in wanted:
            lab = images.Lab(sandbox, options.materials, {"pyrun": pyrun, "docker": docker, "podman": podman})
            try:
                lab.prepare(f"{CHECKOUT}/examples/flask-app")
                save(sandbox, "images", images.rows(lab, max(3, options.rounds // 3)), facts)
            finally:
                lab.stop()
    if "oci" in wanted:
        facts = facts[:3]
        for program in (f"{options.pyrun}-oci", "runc", "crun"):
            facts.append(call((program, "--version"), env=sandbox.env).ok().output.splitlines()[0])
        save(sandbox, "oci", bundles.rows(sandbox, f"{options.pyrun}-oci", options.rounds), facts)


def save(sandbox: Sandbox, section: str, rows: Iterable[Row], facts: list[str]) -> None:
    """Measures and writes the section's results for the outer half, telling what comes out meanwhile."""
    before = report.load()
    done = []
    for row in rows:
        done.append(row)
        print("\n".join(row.lines()), flush=True)
    said = [*facts, f"load {before:.1f} before, {report.load():.1f} after"]
    with open(f"{sandbox.directory}/{section}.json", "w", encoding="utf-8") as file:
        json.dump({"rows": [row.asdict() for row in done], "facts": said}, file)


if __name__ == "__main__":
    sys.exit(main())
