# SPDX-License-Identifier: Apache-2.0
"""--explain: the plan of a start, printed. --trace: every step as it happens, with its result and microseconds."""

from __future__ import annotations

from pyrun.runtime import breakpoints, events
from pyrun.runtime.engine.containers import SHORT_ID
from pyrun.runtime.engine.names import HEX, ID_LENGTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from pyrun.runtime.cli.context import Context
    from pyrun.runtime.engine.options import RunOptions


def print_plan(ctx: Context, options: RunOptions) -> int:
    """Prints what a start would do, host and container, on stdout; changes nothing."""
    from pyrun.runtime.engine.explain import explain

    steps = explain(ctx.paths, options)
    if options.format == "json":
        import json

        ctx.print(json.dumps([step.asdict() for step in steps], indent=1, ensure_ascii=False))
        return 0
    where = why = ""
    for number, step in enumerate(steps, 1):
        if step.where != where:
            ctx.print("On the host:" if step.where == "host" else "In the container:")
            where = step.where
        ctx.print(f"{number:4}  {step.area:<13} {short_ids(step.what)}")
        if step.why and step.why != why:
            ctx.print(f"{'':20}# {step.why}")
        why = step.why
    return 0


def short_ids(text: str) -> str:
    """The text with every id of 64 hex digits cut to docker's 12, so that a line of a step can be read."""
    if len(text) < ID_LENGTH:
        return text
    out, run = [], ""
    for char in [*text, ""]:
        if char and char in HEX:
            run += char
            continue
        out.append(f"{run[:SHORT_ID]}…" if len(run) == ID_LENGTH else run)
        out.append(char)
        run = ""
    return "".join(out)


class traced:  # noqa: N801 - reads as a statement: `with traced(ctx, options)`
    """Prints every step of the block on stderr when --trace is on."""

    def __init__(self, ctx: Context, options: RunOptions) -> None:
        self._ctx = ctx
        self._on = options.trace
        self._json = options.format == "json"

    def __enter__(self) -> Self:
        if self._on:
            events.set_sink(self._print)
        breakpoints.watch_host()
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        events.set_sink(None)
        if self._on:
            try:
                self._ctx.stderr.flush()
            except OSError:
                pass  # nobody reads any more

    def _print(self, event: events.Event) -> None:
        try:
            self._write(event)
        except OSError:  # nobody reads any more: that must not stop a start, and still less its clean-up
            events.set_sink(None)

    def _write(self, event: events.Event) -> None:
        if self._json:
            import json

            self._ctx.stderr.write(json.dumps(event.asdict(), ensure_ascii=False) + "\n")
            return
        result = "failed" if event.error else "ok"
        line = f"{event.microseconds:8.0f} µs  {result:<6}  {event.where:<9}  {event.area:<13} {short_ids(event.what)}"
        self._ctx.stderr.write(f"{line}: {event.error}\n" if event.error else f"{line}\n")
