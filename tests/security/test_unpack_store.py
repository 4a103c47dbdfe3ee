# SPDX-License-Identifier: Apache-2.0
"""Hostile layers on their way into the store: it is afterwards as it was before."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tars
from pyrun.rootfs.limits import ArchiveError
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.paths import Paths
from requires import requires
from security.layer_place import hard, link, write

pytestmark = requires(root=True)


# Through the store ---------------------------------------------------------------------------------------------------


def files_below(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if not p.is_dir())


EMPTY_STORE = ["images/lock", "images/oci-layout", "layers/lock"]


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([tars.tar(write("../x"))], r"'\.\./x'"),
        ([tars.tar(write("ok")), tars.tar(hard("x", "/etc/shadow"))], "'x'"),
        ([tars.tar(write("ok"))[:700]], "truncated"),
        ([b"no tar at all" * 100], "no tar header"),
    ],
)
def test_a_hostile_image_leaves_an_empty_store(tmp_path: Path, layers: list[bytes], why: str) -> None:
    """No blob, no layer, no name, no temporary file: as if the command had never run."""
    store = ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))
    with pytest.raises(PyrunError, match=why):
        store.load(io.BytesIO(tars.docker_archive(layers, ["evil"])))
    assert store.list() == []
    assert set(files_below(tmp_path / "data")) <= {*EMPTY_STORE, "images/garbage"}
    assert os.listdir(tmp_path) == ["data"]


def test_a_tampered_layer_in_an_archive(tmp_path: Path) -> None:
    """The config's diff-ids do not fit: refused, with the layer's digest."""
    store = ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))
    good, bad = tars.tar(write("a")), tars.tar(write("a", b"evil"))
    archive = tars.docker_archive([bad], ["x"], image_config=tars.config([good]))
    with pytest.raises(ArchiveError, match="diff-id"):
        store.load(io.BytesIO(archive))
    oci = tars.Oci()
    oci.name(oci.manifest([good]), "x")
    oci.blobs[tars.sha256(good)] = bad
    with pytest.raises(PyrunError, match="missing"):
        store.load(io.BytesIO(oci.archive()))
    assert store.list() == []


def test_paths_inside_an_image_archive_lead_nowhere(tmp_path: Path) -> None:
    """Config, Layers and symlinks of a docker-archive are looked up among its members, never on the host."""
    store = ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))
    for config, layer in (("/etc/passwd", "l"), ("../../../../etc/passwd", "l"), ("c", "/etc/passwd"), ("c", "s")):
        manifest = f'[{{"Config":"{config}","RepoTags":["x"],"Layers":["{layer}"]}}]'.encode()
        archive = tars.tar(
            tars.member("c", data=tars.config([tars.tar()])), tars.member("l", data=tars.tar()),
            link("s", "/etc/passwd"), tars.member("manifest.json", data=manifest),
        )  # fmt: skip
        with pytest.raises(ArchiveError, match=r"missing|'\.\.'"):
            store.load(io.BytesIO(archive))


FULL_DISK = """
import io, os, sys
sys.path.insert(0, sys.argv[2])
import tars
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.paths import Paths
store = ImageStore(Paths(sys.argv[1] + "/data", sys.argv[1] + "/run"))
small = tars.docker_archive([tars.tar(tars.member("a", data=b"x" * 1000))], ["small"])
assert store.load(io.BytesIO(small)) == ["small:latest"]
before = sorted(os.listdir(sys.argv[1] + "/data/layers"))
import gzip, random
data = random.Random(0).randbytes(1 << 20) + bytes(9 << 20)   # 1 MiB packed, 10 MiB unpacked: fits, then does not
more = random.Random(1).randbytes(9 << 20)
big = [tars.tar(tars.member("big", data=data)), tars.tar(tars.member("bigger", data=more))]
for layer in big:
    try:
        store.load(io.BytesIO(tars.docker_archive([layer], ["big"], compressed=True)))
    except PyrunError as error:
        print(error, "|", error.hint)
    else:
        raise SystemExit("the disk was not full")
    assert [image.names for image in store.list()] == [("small:latest",)]
    assert sorted(os.listdir(sys.argv[1] + "/data/layers")) == before, os.listdir(sys.argv[1] + "/data/layers")
assert store.load(io.BytesIO(small)) == ["small:latest"]
assert store.unpacked(store.resolve("small"))
store.remove("small")
assert store.list() == []
"""


def test_a_full_disk_loses_the_new_image_and_no_old_one(tmp_path: Path) -> None:
    """8 MiB of tmpfs in a mount namespace of the test: ENOSPC while unpacking, then while the blob is stored."""
    script = tmp_path / "script.py"
    script.write_text(FULL_DISK)
    mounted = tmp_path / "small-disk"
    mounted.mkdir()
    tests = str(Path(__file__).resolve().parent.parent)
    command = f'mount -t tmpfs -o size=8m tmpfs "{mounted}" && exec "{sys.executable}" "{script}" "{mounted}" "{tests}"'
    found = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", command], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == 2
    assert all("no space left on device" in line and "free some space" in line for line in lines), lines
    assert "'big'" in lines[0]
