# SPDX-License-Identifier: Apache-2.0
"""Writes a package of an npm registry, a gzipped tar file, to standard output: npm_package.py REGISTRY NAME MAJOR.

The newest version of that major one; what comes must have the digest that the registry's metadata gives (npm's
package-metadata documentation, "dist.integrity"). Its dependencies are not looked at: npm brings its own with it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import urllib.request
from typing import Any


def newest(versions: dict[str, Any], major: str) -> dict[str, Any]:
    """The metadata of the newest release (not a pre-release) whose version begins with `major`."""
    found = {
        tuple(int(part) for part in text.split(".")): value
        for text, value in versions.items()
        if text.startswith(f"{major}.") and "-" not in text
    }
    if not found:
        raise SystemExit(f"npm_package: the registry has no version {major}.x")
    return dict(found[max(found)])


def fetch(url: str) -> bytes:
    """The body at `url`; proxies and authorities as the environment and the system have them."""
    with urllib.request.urlopen(url, timeout=60) as response:
        return bytes(response.read())


def main(registry: str, name: str, major: str) -> None:
    """See the module's text."""
    chosen = newest(json.loads(fetch(f"{registry}/{name}"))["versions"], major)
    archive = fetch(chosen["dist"]["tarball"])
    algorithm, _, expected = chosen["dist"]["integrity"].partition("-")
    if base64.b64encode(hashlib.new(algorithm, archive).digest()).decode() != expected:
        raise SystemExit(f"npm_package: {chosen['dist']['tarball']} has another digest than the registry says")
    sys.stdout.buffer.write(archive)
    print(f"npm_package: {name} {chosen['version']}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
