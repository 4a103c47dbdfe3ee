# SPDX-License-Identifier: Apache-2.0
"""Prints a pip.conf for an image: what pip needs to reach the index that this machine uses, and nothing else.

Reads what pip itself would read (its configuration files in their order, then PIP_* variables: pip's documentation,
"Configuration"), without needing a pip. Folders of this machine mean nothing inside an image and are left out.
"""

from __future__ import annotations

import configparser
import os

FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
ADDRESSES = ("index-url", "extra-index-url", "find-links")  # lists of URLs or folders
OTHERS = ("trusted-host", "proxy", "timeout", "retries")
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def settings() -> dict[str, str]:
    """pip's settings here: key in its long form ("index-url") to value. A file that cannot be parsed is an error."""
    values: dict[str, str] = {}
    for path in (*FILES, os.environ.get("PIP_CONFIG_FILE", "")):
        parser = configparser.RawConfigParser()
        parser.read(os.path.expanduser(path))
        for section in ("global", "install"):
            if parser.has_section(section):
                values |= {key.lower().replace("_", "-"): value for key, value in parser.items(section)}
    for name, value in os.environ.items():
        if name.startswith("PIP_") and value:
            values[name[4:].lower().replace("_", "-")] = value
    values["timeout"] = values.get("default-timeout", values.get("timeout", ""))  # two names of one option
    return values


def image_settings(values: dict[str, str]) -> dict[str, str]:
    """The settings that mean the same inside an image, with the image's own CA bundle."""
    chosen = {}
    for key in ADDRESSES:
        chosen[key] = " ".join(word for word in values.get(key, "").split() if word.startswith(("http://", "https://")))
    for key in OTHERS:
        chosen[key] = " ".join(values.get(key, "").split())
    if os.path.exists(CA_BUNDLE):
        chosen["cert"] = CA_BUNDLE
    chosen["root-user-action"] = "ignore"  # in a container, root is who installs
    return {key: value for key, value in chosen.items() if value}


if __name__ == "__main__":
    print("[global]")
    for key, value in image_settings(settings()).items():
        print(f"{key} = {value}")
