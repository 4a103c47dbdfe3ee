# SPDX-License-Identifier: Apache-2.0
"""BuildKit's own parser, to compare ours with: the PyPI package `dockerfile`, in a process of its own.

Of its own, because it brings Go's runtime and threads, and tests fork. Needs requires(modules=("dockerfile",)); there
are wheels for x86-64 only, which is why pyproject.toml asks for it only there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


class Oracle:
    """`with Oracle() as oracle: oracle.parse(text)`: a list of dicts, or a str with what is wrong."""

    def __enter__(self) -> Oracle:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def parse(self, text: str) -> list[dict[str, Any]] | str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(text) + "\n")
        self._process.stdin.flush()
        found: list[dict[str, Any]] | str = json.loads(self._process.stdout.readline())
        return found


def main() -> None:
    import dockerfile  # type: ignore[import-not-found,unused-ignore]

    for line in sys.stdin:
        try:
            found: object = [
                {
                    "name": (command.cmd or "").upper(),
                    "inner": (command.sub_cmd or "").upper(),
                    "json": command.json,
                    "lines": [command.start_line, command.end_line],
                    "flags": list(command.flags),
                    "value": list(command.value),
                    "heredocs": [[doc.name, doc.file_descriptor, doc.content] for doc in command.heredocs],
                }
                for command in dockerfile.parse_string(json.loads(line))
            ]
        except dockerfile.GoParseError as error:
            found = str(error)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
