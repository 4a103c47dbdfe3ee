# SPDX-License-Identifier: Apache-2.0
"""Pressure stall information: how long processes waited for cpu, memory or io (Documentation/accounting/psi.rst)."""

from __future__ import annotations

from pyrun.runtime.record import Record

from .cgroupfs import read

RESOURCES = ("cpu", "memory", "io")


class Stall(Record):
    """Percent of the last 10, 60 and 300 seconds, and microseconds in all."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total_usec: int = 0


class Pressure(Record):
    """`some`: at least one task waited; `full`: all of them did at once."""

    some: Stall = Stall()
    full: Stall = Stall()


def parse(text: str) -> Pressure:
    """The Pressure of a *.pressure file:

    some avg10=0.12 avg60=0.05 avg300=0.01 total=12345
    full avg10=0.00 avg60=0.00 avg300=0.00 total=0
    """
    found = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        found[kind] = Stall(
            avg10=float(values.get("avg10", 0)),
            avg60=float(values.get("avg60", 0)),
            avg300=float(values.get("avg300", 0)),
            total_usec=int(values.get("total", 0)),
        )
    return Pressure(found.get("some", Stall()), found.get("full", Stall()))


def pressure(directory: str) -> dict[str, Pressure]:
    """Resource -> Pressure for those that the kernel accounts: none with psi=0, or without CONFIG_PSI."""
    found = {}
    for name in RESOURCES:
        try:
            found[name] = parse(read(directory, f"{name}.pressure"))
        except OSError:
            continue
    return found
