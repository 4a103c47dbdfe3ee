# SPDX-License-Identifier: Apache-2.0
"""`pyrun build` makes what docker's BuildKit makes of the same Dockerfile: the config, the history, every file.

The tables are tests/build_cases_*.py. Debian's docker 20.10 has BuildKit 0.8 in it, and its frontend: heredocs, --link,
--parents, --exclude, --checksum and ADD of git came later and are not compared here.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

import build_cases_config
import build_cases_copy
import build_cases_run
import buildtrees
import likeness
import tars
from requires import requires

if TYPE_CHECKING:
    from pathlib import Path

    from build_cases import Case
    from cli import Pyrun
    from dockerd import Dockerd
    from podman import Podman

pytestmark = requires(root=True, tools=("dockerd",))
CASES = (*build_cases_copy.CASES, *build_cases_config.CASES, *build_cases_run.CASES)

# What both builders have something to do for, and prints SAYS
DOCKERFILE = """\
ARG base=busybox
FROM $base AS make
ARG greeting=hello
RUN mkdir -p /out/sub && echo "$greeting" >/out/sub/one && ln /out/sub/one /out/two && chmod 4755 /out/two
RUN echo gone >/out/gone && ln -s sub/one /out/link
RUN rm /out/gone && rm -r /out/sub && mkdir /out/sub && echo new >/out/sub/one
FROM $base
ENV PLACE=world
WORKDIR /data
COPY --from=make --chown=5:6 /out .
COPY --chmod=640 f sub/
ADD a.tar /unpacked/
RUN echo 'app:x:7:8::/data:/bin/sh' >>/etc/passwd && chown -R app sub
USER app
VOLUME /kept
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat two link sub/f /unpacked/t/x; echo $PLACE; id -u; pwd"]
"""
FILES: dict[str, buildtrees.Content] = {"f": "context\n", "a.tar": tars.tar(tars.member("t/x", data=b"x\n"))}
SAYS = "hello\nnew\ncontext\nx\nworld\n7\n/data"


class Builders:
    """The two, each with the same busybox, and the context that both get."""

    def __init__(self, pyrun: Pyrun, docker: Dockerd, directory: Path) -> None:
        self.pyrun = pyrun
        self.docker = docker
        self.directory = directory
        self.context = directory / "context"

    def write(self, case: Case) -> None:
        """The context anew: building must not change it, but a test should not rely on that."""
        shutil.rmtree(self.context, ignore_errors=True)
        buildtrees.make(self.context, case.files)
        (self.context / "Dockerfile").write_bytes(case.dockerfile.encode())
        if case.base:
            (self.context / "base").write_bytes(case.base.encode())

    def build(self, builder: Pyrun | Dockerd, *flags: str) -> tuple[str, str]:
        """(the image's id, "") or ("", what was said)."""
        ids = self.directory / "id"
        ids.unlink(missing_ok=True)
        words = ("build", "--network", "none", "--progress", "plain", "--iidfile", str(ids), *flags, str(self.context))
        if builder is self.pyrun:
            result = self.pyrun(*words, timeout=120)
            code, said = result.rc, result.err
        else:
            done = self.docker(*words)
            code, said = done.returncode, done.stderr
        return (ids.read_text(), "") if code == 0 else ("", said or "nothing was said")

    def likeness(self, builder: Pyrun | Dockerd, image: str) -> likeness.Likeness:
        """What the builder saves of an image."""
        path = str(self.directory / "saved.tar")
        builder.ok("save", "-o", path, image)
        return likeness.read(path)


@pytest.fixture(scope="session")
def same_base(session_pyrun: Pyrun, docker: Dockerd, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """busybox:latest in docker, as it is in pyrun."""
    path = tmp_path_factory.mktemp("base") / "base.tar"
    session_pyrun.ok("save", "-o", str(path), base_image)
    docker.ok("load", "-i", str(path))


@pytest.fixture
def builders(pyrun: Pyrun, docker: Dockerd, same_base: None, tmp_path: Path) -> Builders:
    os.umask(0o022)  # of the files in the contexts
    return Builders(pyrun, docker, tmp_path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_the_same_image(builders: Builders, case: Case) -> None:
    """Both make the same of it, or both refuse it; what differs is in the table, with the reason."""
    made: list[likeness.Likeness] = []
    said = []
    for builder in (builders.pyrun, builders.docker):
        builders.write(case)
        if case.base:
            base, error = builders.build(builder, "-t", "base:1", "-f", str(builders.context / "base"))
            assert base, error
        flags = [flag.format(context=builders.context) for flag in case.flags]
        image, error = builders.build(builder, *flags)
        said.append(error)
        if image and not case.fails:
            made.append(builders.likeness(builder, image))
    who = {(True, True): "both", (True, False): "ours", (False, True): "theirs", (False, False): ""}
    assert who[bool(said[0]), bool(said[1])] == case.fails, "\n".join(said)
    assert "internal error" not in said[0]
    assert bool(case.why) is (case.fails in ("ours", "theirs"))
    if case.fails:
        return
    lines = likeness.differences(*made)
    unexpected = [line for line in lines if not line.startswith(tuple(case.differs))]
    assert not unexpected, "\n".join(unexpected)
    stale = [start for start in case.differs if not any(line.startswith(start) for line in lines)]
    assert not stale, f"the same by now: {stale}"


@pytest.fixture
def both_images(builders: Builders) -> dict[str, Path]:
    """One Dockerfile built and saved by both, as made:1."""
    builders.context.mkdir()
    buildtrees.make(builders.context, FILES)
    (builders.context / "Dockerfile").write_text(DOCKERFILE)
    saved = {}
    for name, builder in (("pyrun", builders.pyrun), ("docker", builders.docker)):
        image, error = builders.build(builder, "-t", "made:1")
        assert image, error
        saved[name] = builders.directory / f"{name}.tar"
        builder.ok("save", "-o", str(saved[name]), "made:1")
        builder.ok("rmi", "made:1")
    return saved


def test_what_is_built_here_runs_in_docker(docker: Dockerd, both_images: dict[str, Path]) -> None:
    """Saved, loaded and run there."""
    docker.ok("load", "-i", str(both_images["pyrun"]))
    try:
        assert docker.ok("run", "--rm", "made:1") == SAYS
    finally:
        docker("rmi", "made:1")


@requires(tools=("podman", "runc"))
def test_what_is_built_here_runs_in_podman(podman: Podman, both_images: dict[str, Path]) -> None:
    """Saved, loaded and run there."""
    podman.ok("load", "-i", str(both_images["pyrun"]))
    try:
        assert podman.ok("run", "--rm", "made:1") == SAYS
    finally:
        podman("rmi", "-f", "made:1")


def test_what_docker_builds_runs_here(pyrun: Pyrun, both_images: dict[str, Path]) -> None:
    """And it is what a FROM of it here starts with."""
    pyrun.ok("load", "-i", str(both_images["docker"]))
    assert pyrun.ok("run", "--rm", "--network", "none", "made:1") == SAYS
    built = pyrun(
        "build", "-q", "--network", "none", "-", stdin='FROM made:1\nRUN ["cat", "two"]\nCMD ["cat sub/one"]\n'
    )
    assert built.rc == 0, str(built)
    assert pyrun.ok("run", "--rm", "--network", "none", built.out.strip()) == "new"
    pyrun.ok("rmi", "-f", "made:1")


def test_what_pyrun_builds_docker_builds_upon(docker: Dockerd, both_images: dict[str, Path]) -> None:
    """The other way round."""
    docker.ok("load", "-i", str(both_images["pyrun"]))
    docker.ok(
        "build",
        "--network",
        "none",
        "-t",
        "upon:1",
        "-",
        stdin=b'FROM made:1\nRUN ["cat", "two"]\nCMD ["cat sub/one"]\n',
    )
    try:
        assert docker.ok("run", "--rm", "upon:1") == "new"
    finally:
        docker("rmi", "upon:1", "made:1")


def test_the_comparison_sees_a_difference(builders: Builders) -> None:
    """A mode, a link, a variable and a removed file are told apart: the tests above can fail."""
    case = next(case for case in CASES if case.name == "hard-links" and case.dockerfile.count("RUN") == 3)
    builders.write(case)
    image, error = builders.build(builders.docker)
    assert image, error
    theirs = builders.likeness(builders.docker, image)
    changed = case.dockerfile.replace("ln /h/a /c", "cp /h/a /c && chmod 600 /h/a && rm /etc/group") + "ENV x=y\n"
    (builders.context / "Dockerfile").write_text(changed)
    image, error = builders.build(builders.pyrun)
    assert image, error
    lines = likeness.differences(builders.likeness(builders.pyrun, image), theirs)
    for start in ("config Env", "history", "file h/a", "file etc/group", "layer 1"):
        assert any(line.startswith(start) for line in lines), (start, lines)
