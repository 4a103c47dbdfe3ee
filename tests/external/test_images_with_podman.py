# SPDX-License-Identifier: Apache-2.0
"""Images go from pyrun to podman, skopeo and umoci and back: they run there, and every file is the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import images
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli import Pyrun
    from podman import Podman

pytestmark = requires(root=True, tools=("podman", "runc"))
NAME = "example.org/ours:1"  # podman calls a name without a registry localhost/…
FORMS = ("docker-archive", "oci-archive", "oci-dir", "docker-dir")


@pytest.fixture
def made(pyrun: Pyrun, base_image: str) -> str:
    """The id of the image with everything in it, called NAME."""
    return images.make(pyrun, base_image, NAME)


@pytest.fixture(autouse=True)
def no_container_stays(podman: Podman) -> Iterator[None]:
    """A test that fails leaves its containers: not to the next one."""
    yield
    for name in podman.ok("ps", "-aq").split():
        podman("rm", "-f", name)


def exported(tool: Any, image: str, path: Path) -> dict[str, tuple[object, ...]]:
    """The files of a container that was only created."""
    name = tool.ok("create", "--name", "looked-at", image, "true").splitlines()[-1]
    tool.ok("export", "-o", str(path), name)
    tool.ok("rm", name)
    return images.tree(path.read_bytes())


def loaded(output: str) -> str:
    """The name, or the id, in the last line that `load` printed."""
    return output.splitlines()[-1].partition(": ")[2]


@pytest.mark.parametrize("form", FORMS)
def test_podman_loads_and_runs_what_pyrun_saves(
    pyrun: Pyrun, podman: Podman, made: str, tmp_path: Path, form: str
) -> None:
    """Each form: the same config and files, and it prints the same; the id too, where podman keeps the config."""
    pyrun.ok("save", "--format", form, "-o", str(tmp_path / "image"), NAME)
    image = loaded(podman.ok("load", "-i", str(tmp_path / "image")))
    if form.endswith("archive"):
        assert image == NAME
    assert podman.ok("run", "--rm", image) == images.SAYS
    theirs, ours = (
        json.loads(podman.ok("image", "inspect", image))[0],
        json.loads(pyrun.ok("image", "inspect", NAME))[0],
    )
    assert f"sha256:{theirs['Id']}" == made
    for key in images.CONFIG_KEYS:
        assert theirs["Config"][key] == ours["Config"][key], key
    assert theirs["RootFS"] == ours["RootFS"]
    assert exported(podman, image, tmp_path / "theirs") == exported(pyrun, NAME, tmp_path / "ours")
    podman.ok("rmi", image)


def test_podman_loads_several_images_of_one_archive(pyrun: Pyrun, podman: Podman, made: str, tmp_path: Path) -> None:
    """Two images that share layers."""
    pyrun.ok("save", "-o", str(tmp_path / "image"), NAME, f"{NAME}-base")
    podman.ok("load", "-i", str(tmp_path / "image"))
    assert podman.ok("run", "--rm", f"{NAME}-base", "cat", "/data/one") == "one"
    assert podman.ok("run", "--rm", NAME) == images.SAYS
    podman.ok("rmi", NAME, f"{NAME}-base")


@pytest.mark.parametrize("form", FORMS)
def test_pyrun_loads_and_runs_what_podman_saves(
    pyrun: Pyrun, podman: Podman, base_image: str, tmp_path: Path, form: str
) -> None:
    """podman makes layers with whiteouts and an opaque directory; here they are the same files, and run."""
    pyrun.ok("save", "--format", "oci-archive", "-o", str(tmp_path / "base.tar"), base_image)
    base = loaded(podman.ok("load", "-i", str(tmp_path / "base.tar")))
    podman.ok("run", "--name", "maker", base, "sh", "-c", images.MAKE)
    podman.ok("commit", "-q", "maker", f"{NAME}-base")
    podman.ok("run", "--name", "changer", f"{NAME}-base", "sh", "-c", images.CHANGE)
    # its commit takes quotes as they are
    flags = [word for change in images.PORTABLE for word in ("-c", change.replace("'", ""))]
    podman.ok("commit", "-q", "-f", "oci" if form.startswith("oci") else "docker", *flags, "changer", NAME)
    podman.ok("rm", "maker", "changer")
    podman.ok("save", "-q", "--format", form, "-o", str(tmp_path / "image"), NAME)
    image = loaded(pyrun.ok("load", "-i", str(tmp_path / "image")))
    if form.endswith("archive"):
        assert image == NAME
    assert pyrun.ok("run", "--rm", "--network", "none", image) == images.SAYS
    assert exported(podman, NAME, tmp_path / "theirs") == exported(pyrun, image, tmp_path / "ours")
    podman.ok("rmi", "-f", NAME, f"{NAME}-base", base)
    pyrun.ok("rmi", image)


def test_export_and_import_go_both_ways(pyrun: Pyrun, podman: Podman, made: str, tmp_path: Path) -> None:
    """A container's files become an image there and here."""
    pyrun.ok("create", "--name", "ours", NAME)
    pyrun.ok("export", "-o", str(tmp_path / "ours.tar"), "ours")
    podman.ok("import", "-c", "CMD cat /data/one", str(tmp_path / "ours.tar"), "example.org/imported:1")
    assert podman.ok("run", "--rm", "example.org/imported:1", "cat", "/data/one") == "one\nmore"
    podman.ok("create", "--name", "theirs", "example.org/imported:1", "true")
    podman.ok("export", "-o", str(tmp_path / "theirs.tar"), "theirs")
    pyrun.ok("import", str(tmp_path / "theirs.tar"), "imported:1")
    assert pyrun.ok("run", "--rm", "--network", "none", "imported:1", "cat", "/data/one") == "one\nmore"
    assert images.tree((tmp_path / "ours.tar").read_bytes()) == images.tree((tmp_path / "theirs.tar").read_bytes())
    podman.ok("rm", "theirs")
    podman.ok("rmi", "example.org/imported:1")
    pyrun.ok("rm", "ours")
    pyrun.ok("rmi", "imported:1")


# skopeo and umoci ----------------------------------------------------------------------------------------------------


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@requires(tools=("skopeo",))
@pytest.mark.parametrize("form", FORMS)
def test_skopeo_copies_what_pyrun_saves(pyrun: Pyrun, made: str, tmp_path: Path, form: str) -> None:
    """Into an OCI layout of its own, checking every digest on the way; pyrun loads that again as the same image."""
    path = str(tmp_path / "image")
    pyrun.ok("save", "--format", form, "-o", path, NAME)
    source = {
        "docker-archive": f"docker-archive:{path}:{NAME}", "oci-archive": f"oci-archive:{path}:{NAME}",
        "oci-dir": f"oci:{path}:{NAME}", "docker-dir": f"dir:{path}",
    }  # fmt: skip
    skopeo("copy", source[form], f"oci:{tmp_path / 'copied'}:{NAME}")
    pyrun.ok("rmi", NAME)
    assert pyrun.ok("load", "-i", str(tmp_path / "copied")) == f"Loaded image: {NAME}"
    if form.startswith("oci"):  # from docker's types to OCI's skopeo writes another config
        assert pyrun.ok("image", "inspect", "-f", "{{.Id}}", NAME) == made
    assert pyrun.ok("run", "--rm", "--network", "none", NAME) == images.SAYS


@requires(tools=("skopeo",))
def test_skopeo_reads_the_store_itself(pyrun: Pyrun, made: str) -> None:
    """images/ below the data root is an OCI image layout."""
    found = json.loads(skopeo("inspect", f"oci:{pyrun.paths.data}/images:{NAME}"))
    ours = json.loads(pyrun.ok("image", "inspect", NAME))[0]
    assert len(found["Layers"]) == len(ours["RootFS"]["Layers"])
    assert found["Labels"] == ours["Config"]["Labels"]


@requires(tools=("skopeo",))
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_pyrun_loads_what_skopeo_has_compressed(pyrun: Pyrun, made: str, tmp_path: Path, compression: str) -> None:
    """Layers in another compression are the same layers: the image keeps its id."""
    pyrun.ok("save", "--format", "oci-archive", "-o", str(tmp_path / "image"), NAME)
    source, target = f"oci-archive:{tmp_path / 'image'}:{NAME}", f"oci-archive:{tmp_path / 'copied'}:{NAME}"
    skopeo("copy", "--dest-compress-format", compression, "--dest-compress", source, target)
    pyrun.ok("rmi", NAME, f"{NAME}-base")
    assert pyrun.ok("load", "-i", str(tmp_path / "copied")) == f"Loaded image: {NAME}"
    assert pyrun.ok("image", "inspect", "-f", "{{.Id}}", NAME) == made
    assert pyrun.ok("run", "--rm", "--network", "none", NAME) == images.SAYS


@requires(tools=("umoci",))
def test_umoci_unpacks_the_same_tree(pyrun: Pyrun, made: str, tmp_path: Path) -> None:
    """umoci applies the layers by the book of the OCI image spec."""
    pyrun.ok("tag", NAME, "tagged:1")
    pyrun.ok("save", "--format", "oci-dir", "-o", str(tmp_path / "layout"), "tagged:1")
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "one"}  # umoci takes tags only
    (tmp_path / "layout" / "index.json").write_text(json.dumps(index))
    subprocess.run(["umoci", "unpack", "--image", f"{tmp_path / 'layout'}:one", str(tmp_path / "bundle")], check=True)
    subprocess.run(["tar", "-C", str(tmp_path / "bundle" / "rootfs"), "-cf", str(tmp_path / "theirs"), "."], check=True)
    assert images.tree((tmp_path / "theirs").read_bytes()) == exported(pyrun, NAME, tmp_path / "ours")
    pyrun.ok("rmi", "tagged:1")
