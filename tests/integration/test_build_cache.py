# SPDX-License-Identifier: Apache-2.0
"""The build cache: what makes a step run again, and what does not; whose image id is the same."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from builds import Builds
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)
ALL = "FROM busybox\nWORKDIR /w\nCOPY f d/ ./\nRUN echo run > /out\nCMD true\n"


@pytest.fixture
def build(pyrun: Pyrun, base_image: str, tmp_path: Path) -> Builds:
    """Builds on the session's roots; the context's own path is in no key, so each test adds its own salt."""
    made = Builds(pyrun, tmp_path)
    made.write({"f": os.urandom(8).hex(), "d/a": "a", "d/b": "b"})
    return made


def test_everything_is_cached_and_the_id_is_the_same(build: Builds) -> None:
    """The second build runs nothing and makes the very same image."""
    first, second = build(ALL), build(ALL)
    assert first.ran[-2:] == ("COPY f d/ ./", "RUN echo run > /out")
    assert second.ran == ()
    assert second.id == first.id


def test_times_of_files_do_not_count(build: Builds) -> None:
    """A file that was only touched is the same file."""
    first = build(ALL)
    os.utime(build.context / "f", (1, 1))
    assert build(ALL).id == first.id


def replace_link(path: Path, target: str) -> None:
    """Another symbolic link in the place of one."""
    path.unlink()
    path.symlink_to(target)


def test_content_mode_name_and_target_of_files_count(build: Builds) -> None:
    """COPY runs again after a change of content, of a mode, of a name, of a link's target; what comes after it too."""
    dockerfile = "FROM busybox\nCOPY d /d\nRUN ls -l /d > /out\n"
    build(dockerfile)
    changes: list[Callable[[], object]] = [
        lambda: (build.context / "d/a").write_text("changed"),
        lambda: (build.context / "d/a").chmod(0o755),
        lambda: (build.context / "d/a").rename(build.context / "d/c"),
        lambda: (build.context / "d/link").symlink_to("b"),
        lambda: replace_link(build.context / "d/link", "c"),
        (build.context / "d/empty").mkdir,
        lambda: (build.context / "d/empty").chmod(0o700),
        (build.context / "d/c").unlink,
    ]
    for number, change in enumerate(changes):
        change()
        made = build(dockerfile)
        assert made.ran == ("COPY d /d", "RUN ls -l /d > /out"), number
        assert build(dockerfile).ran == (), number


def test_files_that_are_not_copied_do_not_count(build: Builds) -> None:
    """A change beside what COPY takes, or of what .dockerignore hides, changes nothing."""
    dockerfile = "FROM busybox\nCOPY d /d\n"
    build(dockerfile, files={".dockerignore": "d/hidden\n"})
    made = build(dockerfile, files={"other": "x", "d/hidden": "y"})
    assert made.ran == ()


def test_arguments_count_where_they_are_declared(build: Builds) -> None:
    """RUN sees the ARGs above it: another value runs it again; an ARG below it, or none at all, does not."""
    salt = os.urandom(4).hex()
    dockerfile = f"FROM busybox\nRUN echo before {salt}\nARG A=1\nRUN echo after {salt}\n"
    build(dockerfile)
    assert build(dockerfile, "--build-arg", "A=2").ran == (f"RUN echo after {salt}",)
    assert build(dockerfile, "--build-arg", "OTHER=2").ran == ()
    assert build(dockerfile, "--build-arg", "HTTP_PROXY=x").ran == ()


@pytest.mark.parametrize(
    "changed",
    ["ENV X=2", "USER 5", "WORKDIR /tmp", 'SHELL ["/bin/sh", "-x", "-c"]', "ARG Y=2", "RUN true"],
)
def test_what_run_sees_counts(build: Builds, changed: str) -> None:
    """RUN runs again under another ENV, USER, WORKDIR, SHELL, ARG, or upon another step."""
    salt = os.urandom(4).hex()
    build(f"FROM busybox\nRUN echo {salt} > /tmp/x\n")
    assert f"RUN echo {salt} > /tmp/x" in build(f"FROM busybox\n{changed}\nRUN echo {salt} > /tmp/x\n").ran


@pytest.mark.parametrize("changed", ["LABEL a=b", "CMD x", "EXPOSE 1", "VOLUME /v", "STOPSIGNAL 9", "ONBUILD RUN x"])
def test_what_run_does_not_see_does_not_count(build: Builds, changed: str) -> None:
    """Instructions that only describe the image leave the steps after them cached."""
    salt = os.urandom(4).hex()
    build(f"FROM busybox\nRUN echo {salt}\n")
    made = build(f"FROM busybox\n{changed}\nRUN echo {salt}\n")
    assert made.ran == ()


def test_flags_that_run_sees_count(build: Builds) -> None:
    """--network and --add-host of the build, --network and mounts of the RUN are inputs."""
    salt = os.urandom(4).hex()
    dockerfile = f"FROM busybox\nRUN echo {salt}\n"
    build(dockerfile)
    assert build(dockerfile, "--network", "none").ran
    assert build(dockerfile, "--add-host", "here:127.0.0.1").ran
    assert build(f"FROM busybox\nRUN --network=none echo {salt}\n").ran == ()  # as above: the same container
    assert build(f"FROM busybox\nRUN --mount=type=tmpfs,target=/t echo {salt}\n").ran


def test_base_image_counts(build: Builds, busybox_tar: str) -> None:
    """Another image under the base's name runs everything again, and the old one brings the old steps back."""
    salt = os.urandom(4).hex()
    dockerfile = f"FROM cache-base\nRUN echo {salt}\n"
    build.pyrun.ok("tag", "busybox:latest", "cache-base:latest")
    first = build(dockerfile)
    build(f"FROM busybox\nRUN echo other {salt} > /other\n", "-t", "cache-base:latest")
    changed = build(dockerfile)
    assert changed.ran == (f"RUN echo {salt}",)
    build.pyrun.ok("tag", "busybox:latest", "cache-base:latest")
    again = build(dockerfile)
    assert (again.ran, again.id) == ((), first.id)
    assert changed.id != first.id


def test_secrets(build: Builds, tmp_path: Path) -> None:
    """A secret's text is no input, whether it is there is one; it is in no layer, history or config."""
    salt = os.urandom(4).hex()
    secret = tmp_path / "secret"
    secret.write_text("first-secret")
    step = f"RUN --mount=type=secret,id=s cat /run/secrets/s | wc -c > /out || true; echo {salt}"
    dockerfile = f"FROM busybox\n{step}\n"
    with_it = build(dockerfile, "--secret", f"id=s,src={secret}")
    assert build.sh(with_it.id, "cat /out") == "12"
    secret.write_text("second")
    assert build(dockerfile, "--secret", f"id=s,src={secret}").ran == ()
    without = build(dockerfile)
    assert without.ran == (step,)
    assert build(dockerfile).ran == ()
    assert b"first-secret" not in _all_bytes(build.pyrun.paths.data)


def _all_bytes(directory: str) -> bytes:
    found = b""
    for top in ("images", "layers", "build"):
        for root, _, names in os.walk(f"{directory}/{top}"):
            for name in names:
                path = f"{root}/{name}"
                if os.path.isfile(path) and not os.path.islink(path) and os.stat(path).st_size < 1 << 20:
                    with open(path, "rb") as file:
                        found += file.read()
    return found


def test_bind_mounts_count_by_content(build: Builds) -> None:
    """RUN with a bind of the context runs again when a file in it changed."""
    dockerfile = "FROM busybox\nRUN --mount=type=bind,source=d,target=/src cat /src/a > /out\n"
    build(dockerfile)
    assert build(dockerfile, files={"other": "y"}).ran == ()
    made = build(dockerfile, files={"d/a": "new"})
    assert made.ran
    assert build.sh(made.id, "cat /out") == "new"


def test_copy_from_a_stage_counts_by_content(build: Builds) -> None:
    """A stage that changed elsewhere leaves COPY --from cached; one whose file changed does not."""
    salt = os.urandom(4).hex()
    text = (
        "FROM busybox AS a\nRUN echo {0} > /file; echo {1} > /other\n"
        "FROM busybox\nCOPY --from=a /file /\nRUN echo {2}\n"
    )
    build(text.format(salt, 1, salt))
    elsewhere = build(text.format(salt, 2, salt))
    assert elsewhere.ran == (f"RUN echo {salt} > /file; echo 2 > /other",)
    assert build(text.format(f"{salt}x", 2, salt)).ran[-2:] == ("COPY --from=a /file /", f"RUN echo {salt}")


def test_no_cache_and_its_filter(build: Builds) -> None:
    """--no-cache runs every step; --no-cache-filter those of one stage."""
    salt = os.urandom(4).hex()
    text = f"FROM busybox AS a\nRUN echo a {salt} > /a\nFROM busybox AS b\nCOPY --from=a /a /\nRUN echo b {salt}\n"
    build(text)
    assert len(build(text, "--no-cache").ran) == 3
    assert build(text, "--no-cache-filter", "b").ran == ("COPY --from=a /a /", f"RUN echo b {salt}")
    assert build(text).ran == ()


def test_a_removed_image_leaves_its_steps_cached(build: Builds) -> None:
    """rmi takes the image, not the cache; builder prune takes the cache, and nothing that an image needs."""
    first = build(ALL, "-t", "gone:1")
    build.pyrun.ok("rmi", "gone:1")
    again = build(ALL, "-t", "gone:1")
    assert (again.ran, again.id) == ((), first.id)
    build.pyrun.ok("builder", "prune", "-af")
    assert build.pyrun.ok("builder", "du", "--format", "{{.ID}}") == ""
    assert build.sh("gone:1", "cat /out") == "run"
    assert build(ALL).ran


def test_damaged_records_are_no_records(build: Builds) -> None:
    """A record that cannot be read, or whose layer is gone, makes the step run again."""
    first = build(ALL)
    keep = os.path.join(build.pyrun.paths.data, "images/keep")
    for name in os.listdir(keep):
        path = os.path.join(keep, name)
        with open(path) as file:
            value = json.load(file)
        value["data"]["layer"] = {"digest": 7}
        with open(path, "w") as file:
            json.dump(value, file)
    made = build(ALL)
    assert len(made.ran) == 3
    assert build.sh(made.id, "cat /out") == build.sh(first.id, "cat /out")
    for name in os.listdir(keep):
        with open(os.path.join(keep, name), "w") as file:
            file.write("{")
    assert len(build(ALL).ran) == 3


def test_explain_says_what_is_cached_and_runs_nothing(build: Builds) -> None:
    """--explain: cached, run, and what depends on a step that has to be run."""
    salt = os.urandom(4).hex()
    build(f"FROM busybox\nRUN echo {salt}\n")
    (build.context / "Dockerfile").write_text(f"FROM busybox\nRUN echo {salt}\nRUN echo 2 {salt}\nCMD x\nRUN echo 3\n")
    lines = build.pyrun.ok("build", "--explain", str(build.context)).splitlines()
    assert [line.split()[1] for line in lines] == ["cached", "cached", "run", "config", "depends"]
    assert build(f"FROM busybox\nRUN echo {salt}\nRUN echo 2 {salt}\n").ran == (f"RUN echo 2 {salt}",)
