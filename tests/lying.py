# SPDX-License-Identifier: Apache-2.0
"""What the tests with a lying registry have in common: a quick client, and how a lie must end."""

from __future__ import annotations

import os
import time

import pytest

import tars
from pyrun.rootfs import refs
from pyrun.rootfs.registry.config import Registries
from pyrun.rootfs.registry.pull import Pulled, pull
from pyrun.rootfs.registry.sockets import Patience
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError
from registries import configured
from scripted_registry import Image, Scripted

LAYER = tars.tar(tars.member("file", data=os.urandom(300_000)))
QUICK = Patience(attempts=3, first_delay_s=0.02, read_s=1.0, connect_s=2.0, document_s=1.0, longest_delay_s=2.0)
SECRET = "opensesame"


def get(store: ImageStore, server: Scripted, target: str = ":1", registries: Registries | None = None) -> Pulled:
    reference = refs.parse(f"{server.host}/app{target}")
    return pull(store, reference, registries=registries or configured(server.host), patience=QUICK)


def refused(store: ImageStore, server: Scripted, words: str, target: str = ":1") -> PyrunError:
    """A pull that fails with one line that has these words, and leaves the store as it was: empty."""
    start = time.monotonic()
    with pytest.raises(PyrunError, match=words) as caught:
        get(store, server, target)
    line = f"{caught.value} {caught.value.hint}"
    assert line.isprintable()
    assert SECRET not in line
    assert time.monotonic() - start < 30
    assert_unchanged(store)
    return caught.value


def assert_unchanged(store: ImageStore) -> None:
    """No image, no blob, no layer, nothing on its way in."""
    assert store.list() == []
    for directory in (f"{store.layout.path}/ingest", f"{store.layout.path}/blobs/sha256"):
        assert not os.path.isdir(directory) or os.listdir(directory) == []
    if os.path.isdir(store.layers.path):
        assert [name for name in os.listdir(store.layers.path) if name != "lock"] == []


def layer_path(image: Image) -> str:
    return f"/blobs/{tars.sha256(image.layers[0])}"
