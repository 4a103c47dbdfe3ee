# SPDX-License-Identifier: Apache-2.0
"""Rows of the table, the machine they were measured on, and their place in docs/performance.md."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Aim:
    """What pyrun's share of a peer's figure should be: at most `ratio`, or at least."""

    ratio: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.ratio:g}"

    def met(self, ratio: float) -> bool:
        """Whether `ratio` is good enough."""
        return ratio >= self.ratio if self.at_least else ratio <= self.ratio


@dataclass(frozen=True)
class Row:
    """One comparison: samples[engine][round], the first engine is ours; aims by peer."""

    title: str
    unit: str
    samples: dict[str, list[float]]
    aims: dict[str, Aim]

    def ratios(self, peer: str) -> list[float]:
        """Ours by the peer's, one for each round."""
        ours = next(iter(self.samples.values()))
        return [mine / theirs if theirs else 0.0 for mine, theirs in zip(ours, self.samples[peer], strict=True)]

    def lines(self) -> list[str]:
        """A Markdown table line for each peer."""
        ours, *peers = self.samples
        own = figure(self.samples[ours], self.unit)
        lines = []
        for peer in peers:
            ratios = self.ratios(peer)
            aim = self.aims.get(peer)
            verdict = "" if aim is None else "yes" if aim.met(statistics.median(ratios)) else "**no**"
            theirs = figure(self.samples[peer], self.unit)
            cells = (self.title, own, peer, theirs, spread(ratios), "" if aim is None else str(aim), verdict)
            lines.append(f"| {' | '.join(cells)} |")
        return lines

    def asdict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def row_from(data: dict[str, Any]) -> Row:
    """The inverse of Row.asdict()."""
    aims = {peer: Aim(**aim) for peer, aim in data["aims"].items()}
    return Row(data["title"], data["unit"], data["samples"], aims)


def figure(samples: list[float], unit: str) -> str:
    """The median, with its unit."""
    value = statistics.median(samples)
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def spread(ratios: list[float]) -> str:
    """The median of the rounds' ratios, with the quartiles when there are enough of them."""
    median = f"{statistics.median(ratios):.2f}"
    if len(ratios) < 8:
        return median
    low, _, high = statistics.quantiles(ratios, n=4)
    return f"{median} ({low:.2f}–{high:.2f})"


HEAD = (
    "| what | pyrun | peer | its figure | ratio | aim | met |",
    "|---|---|---|---|---|---|---|",
)


def table(rows: list[Row], facts: list[str]) -> str:
    """The whole section: the facts as one paragraph, then the table."""
    lines = [line for row in rows for line in row.lines()]
    return "\n".join(("; ".join(facts) + ".", "", *HEAD, *lines))


def machine() -> list[str]:
    """Processor, memory, kernel, cgroups."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024 / 1e9
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        kinds = {line.partition(" - ")[2].split()[0] for line in file}
    cgroups = "v1 beside v2" if {"cgroup", "cgroup2"} <= kinds else "v2" if "cgroup2" in kinds else "v1"
    return [
        f"{os.cpu_count()} × {model}, {memory:.0f} GB",
        f"Linux {os.uname().release}, cgroup {cgroups}",
    ]


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def today() -> str:
    """Date and hour, UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def write(path: str, section: str, text: str) -> None:
    """Puts the text between the markers of a section in a Markdown file. Raises ValueError when there are none."""
    begin, end = f"<!-- bench:{section} -->", f"<!-- bench:{section} end -->"
    with open(path, encoding="utf-8") as file:
        old = file.read()
    before, found, rest = old.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no section between '{begin}' and '{end}'")
    new = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(new)
    os.replace(temporary, path)
