# SPDX-License-Identifier: Apache-2.0
"""Before anything is timed: every engine really does what the rows compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.clock import Failed
from bench.engines import IMAGE, answer

if TYPE_CHECKING:
    from bench.engines import Engine

PORT = 18080
GET = b"GET /etc/group HTTP/1.0\r\n\r\n"


def check(engine: Engine) -> None:
    """Raises Failed when a container of this engine is not what it should be."""
    script = "echo $((6 * 7)) $$; ls /sys/class/net; ip route | grep -c ^default"
    expect(engine, engine("run", "--rm", IMAGE, "sh", "-c", script).output, "42 1\neth0\nlo\n1")
    expect(engine, engine("run", "--rm", "--network", "none", IMAGE, "ls", "/sys/class/net").output, "lo")
    engine("run", "--rm", IMAGE, "sh", "-c", "exit 7", expected=7)
    name = "check"
    engine("run", "-d", "--name", name, "-p", f"{PORT}:80", IMAGE, "httpd", "-f", "-p", "80", "-h", "/")
    said = answer(PORT, GET)
    if b"root:x:0:" not in said:
        raise Failed(f"{engine.name}: the published port answers {said!r}")
    expect(engine, engine("exec", name, "sh", "-c", "echo inside; cat /proc/1/comm").output, "inside\nhttpd")
    engine.remove(name)
    expect(engine, engine("ps", "-aq").output, "")


def expect(engine: Engine, output: str, wanted: str) -> None:
    """Raises Failed when the output is not `wanted`, but for white space at its ends."""
    if output.strip() != wanted:
        raise Failed(f"{engine.name} printed {output!r}, not {wanted!r}")
