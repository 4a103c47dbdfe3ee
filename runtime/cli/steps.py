# SPDX-License-Identifier: Apache-2.0
"""--explain: the plan of a start, printed. --trace: every step as it happens, with its result and microseconds."""

from __future__ import annotations

from pyrun.runtime import breakpoints, events

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
    before = ""
    for number, step in enumerate(steps, 1):
        if step.where != before:
            ctx.print("On the host:" if step.where == "host" else "In the container:")
            before = step.where
        line = f"{number:4}  {step.area:<12} {step.what}"
        ctx.print(line, *([f"{'':19}# {step.why}"] if step.why else []))
    return 0


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
            self._ctx.stderr.flush()

    def _print(self, event: events.Event) -> None:
        if self._json:
            import json

            self._ctx.stderr.write(json.dumps(event.asdict(), ensure_ascii=False) + "\n")
            return
        result = f"failed: {event.error}" if event.error else "ok"
        left = f"{event.where:<9} {event.area:<10} {event.what}"
        self._ctx.stderr.write(f"{left:<84} {result} {event.microseconds:8.0f} µs\n")
