# SPDX-License-Identifier: Apache-2.0
"""What `run` and `create` do about an image that is not here, as far as no registry is needed for it."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyrun.rootfs import media
from pyrun.rootfs.image import Image, ImageConfig
from pyrun.rootfs.registry.config import Entry, Registries
from pyrun.rootfs.registry.progress import Progress
from pyrun.runtime import events
from pyrun.runtime.cli import values
from pyrun.runtime.cli.progress import Shown
from pyrun.runtime.engine import login, pulling
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from pyrun.runtime.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

#: docker.io where nobody listens
OFFLINE = Registries([Entry("docker.io", location="localhost:9")], {"short": "docker.io/team/short"}, ())


class Lines(Progress):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(f"{tmp_path}/data", f"{tmp_path}/run")


def image_for(platform: str) -> Image:
    system, architecture, variant = [*platform.split("/"), ""][:3]
    return Image(
        "sha256:" + "0" * 64, "sha256:" + "1" * 64, (), (), "", architecture, system, variant, "", 0, ImageConfig(),
        (), (), {}, {},
    )  # fmt: skip


# --- ensure() --------------------------------------------------------------------------------------------------


def test_missing_image_is_announced_and_looked_for(paths: Paths) -> None:
    """docker's line first; then the registry's reason in one line. The store is not even made."""
    progress = Lines()
    with pytest.raises(NotFound) as caught:
        pulling.ensure(paths, "nothing", progress=progress, registries=OFFLINE)
    assert progress.lines[0] == "Unable to find image 'nothing:latest' locally"
    reason = "it is not here, and pulling it failed: registry localhost:9: connection refused"
    assert str(caught.value) == f"no such image 'nothing': {reason}"
    assert caught.value.hint == pulling.ELSEWHERE


def test_alias_is_looked_for_under_its_full_name(paths: Paths) -> None:
    """The line shows what it stands for, the error what was typed."""
    progress = Lines()
    with pytest.raises(NotFound, match="no such image 'short:2'"):
        pulling.ensure(paths, "short:2", progress=progress, registries=OFFLINE)
    assert progress.lines[0] == "Unable to find image 'team/short:2' locally"


def test_always_does_not_look_here_first(paths: Paths) -> None:
    """The registry's error is the error."""
    progress = Lines()
    with pytest.raises(PyrunError) as caught:
        pulling.ensure(paths, "nothing", policy="always", progress=progress, registries=OFFLINE)
    assert str(caught.value) == "registry localhost:9: connection refused"
    assert not any("Unable" in line for line in progress.lines)


def test_never_asks_nobody(paths: Paths) -> None:
    """Not even the configuration decides."""
    with pytest.raises(NotFound, match="it is not here, and --pull never was said"):
        pulling.ensure(paths, "nothing", policy="never", registries=OFFLINE)


@pytest.mark.parametrize("text", ["0" * 64, "sha256:" + "0" * 64, "sha256:0123"])
def test_ids_are_not_pulled(paths: Paths, text: str) -> None:
    """They name what is here, or nothing."""
    for policy in ("missing", "always"):
        with pytest.raises(NotFound):
            pulling.ensure(paths, text, policy=policy, registries=OFFLINE)


def test_unknown_policy(paths: Paths) -> None:
    """Is a mistake in the command line."""
    with pytest.raises(UsageError, match="--pull often"):
        pulling.ensure(paths, "x", policy="often")


# --- platforms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "platform", "fits"),
    [
        ("linux/amd64", "", True),
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_fits(image: str, platform: str, fits: bool) -> None:
    """What an older variant runs, a newer one runs too."""
    assert pulling.fits(image_for(image), platform) is fits


def test_warning_of_another_platform() -> None:
    """docker's words, but not for what the machine runs anyway."""
    said: list[str] = []
    events.set_warner(said.append)
    try:
        pulling.warn_of_platform(image_for("linux/pdp11"))
        assert "the requested image's platform (linux/pdp11) does not match" in said.pop()
        if media.host_platform()[1] == "amd64":
            pulling.warn_of_platform(image_for("linux/386"))
        assert not said
    finally:
        events.set_warner(None)


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AArch64", "linux/arm64"),
        ("arm64", "linux/arm64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("", ""),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platform_flag(text: str, platform: str) -> None:
    """Other words for an architecture become those of image indexes."""
    assert values.platform(text) == platform


@pytest.mark.parametrize("text", ["linux/", "/amd64", "linux/amd64/v1/x", "linux/a b", "linux/é"])
def test_platform_flag_refuses(text: str) -> None:
    """What names no platform."""
    with pytest.raises(UsageError, match="not a platform"):
        values.platform(text)


# --- login -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("localhost:5000", "localhost:5000"),
        ("https://reg.example/v2/", "reg.example"),
        ("reg.example:5000/team", "reg.example:5000"),
        ("registry", "registry"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_what_login_means(text: str, domain: str) -> None:
    """An address, with or without scheme and path, is its host; Docker Hub's names are docker.io."""
    assert login.registry_of(text) == domain


@pytest.mark.parametrize("text", ["a b", "-x", "reg.example:port", "a_b", "user@host", "https://"])
def test_what_login_cannot_mean(text: str) -> None:
    """Is refused before anything is asked or kept."""
    with pytest.raises(UsageError):
        login.registry_of(text)


# --- progress --------------------------------------------------------------------------------------------------


def test_plain_lines() -> None:
    """Off a terminal: one line for each change, none for bytes, none twice."""
    out = io.StringIO()
    with Shown(out) as progress:
        progress.line("latest: Pulling from library/x")
        progress.begin("0123", "Downloading", 100)
        progress.begin("0123", "Downloading", 100)
        progress.advance("0123", 50)
        progress.done("0123", "Download complete")
        progress.done("0123", "Pull complete")
    assert out.getvalue().splitlines() == [
        "latest: Pulling from library/x", "0123: Downloading", "0123: Download complete", "0123: Pull complete",
    ]  # fmt: skip


def test_quiet() -> None:
    """Nothing at all."""
    out = io.StringIO()
    with Shown(out, quiet=True) as progress:
        progress.line("x")
        progress.begin("0123", "Downloading", None)
        progress.done("0123", "Pulled")
    assert out.getvalue() == ""


# --- cost ------------------------------------------------------------------------------------------------------


def test_start_from_an_image_that_is_here_loads_no_registry_client() -> None:
    """What a worker of the monitor has loaded for `run` knows nothing of registries, HTTP or bars."""
    code = (
        "import sys\n"
        "import pyrun.runtime.cli.run, pyrun.runtime.engine.run, pyrun.runtime.engine.start, pyrun.rootfs.store\n"
        "late = ('pyrun.rootfs.registry', 'pyrun.runtime.engine.pulling', 'pyrun.runtime.cli.progress', 'urllib3',"
        " 'rich', 'ssl', 'http', 'tomllib')\n"
        "print(*(name for name in sys.modules if name.startswith(late)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
