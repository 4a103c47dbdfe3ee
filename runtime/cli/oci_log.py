# SPDX-License-Identifier: Apache-2.0
"""--log, --log-format and --debug: lines as logrus, which runc uses, writes them, for callers that read them.

text  time="2026-11-24T01:02:03Z" level=error msg="container web: container does not exist"
json  {"level":"error","msg":"container web: container does not exist","time":"2026-11-24T01:02:03Z"}
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.events import Event


def line(form: str, level: str, text: str, when: float) -> str:
    """One line of the log; `form` is text or json, `when` seconds since the epoch."""
    from pyrun.runtime.oci import json

    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))  # RFC 3339, with its zone
    if form == "json":
        return json.dumps({"level": level, "msg": text, "time": stamp}) + "\n"
    return f'time="{stamp}" level={level} msg={json.dumps(text)}\n'


def write(values: dict[str, str], level: str, text: str) -> None:
    """Appends a line to --log, or writes it to stderr without one; what cannot be written is lost.

    An error has been said on stderr, and a debug line is worth no failure.
    """
    data = line(values.get("log-format") or "text", level, text, time.time()).encode()
    path = values.get("log")
    try:
        if not path:
            os.write(2, data)
            return
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
    except OSError:
        pass


def debug(values: dict[str, str]) -> None:
    """From now on every step, on the host and in the container, is a line of the level "debug"."""
    from pyrun.runtime import events

    def sink(event: Event) -> None:
        failure = f": {event.error}" if event.error else ""
        write(values, "debug", f"{event.where}: {event.area}: {event.what} ({event.microseconds:.0f} us){failure}")

    events.set_sink(sink)
