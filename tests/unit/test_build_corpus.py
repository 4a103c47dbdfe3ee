# SPDX-License-Identifier: Apache-2.0
"""Dockerfiles as people write them: each parses like BuildKit's, has the stages it should, expands, and lints."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockerfile_oracle import Oracle
from pyrun.rootfs.build import dockerfile, expand, instructions, lint, platforms
from pyrun.rootfs.build import steps as s
from pyrun.runtime.errors import UsageError
from requires import requires

FOLDER = Path(__file__).parent / "dockerfiles"
# The stages of each (number of steps by name), and what lint says of it.
EXPECTED: dict[str, tuple[list[tuple[str, int]], list[str]]] = {
    "cuda-ml": ([("base", 4), ("wheels", 4), ("", 5)], []),
    "dotnet": ([("build", 6), ("", 5)], []),
    "flask-seed": ([("", 5)], []),
    "go-service": ([("base", 5), ("test", 1), ("build", 5), ("release", 7)], []),
    "heredocs": ([("scripts", 8)], []),
    "java-maven": ([("build", 6), ("final", 13)], []),
    "nginx-static": ([("build", 5), ("", 3)], []),
    "node-next": ([("base", 3), ("deps", 4), ("builder", 5), ("runner", 12)], []),
    "node-seed": ([("", 3)], []),
    "onbuild-base": ([("base", 6)], []),
    "php-apache": ([("vendor", 3), ("", 7)], ["LegacyKeyValueFormat"]),
    "postgres-style": ([("", 15)], ["LegacyKeyValueFormat"]),
    "python-uv": ([("build", 6), ("", 11)], []),
    "rails": ([("base", 3), ("build", 6), ("", 7)], []),
    "rust-chef": ([("chef", 1), ("planner", 2), ("builder", 4), ("runtime", 4)], []),
    "windows-escape": ([("", 6)], ["WorkdirRelativePath"]),
}
NAMES = sorted(EXPECTED)


def read(name: str) -> dockerfile.Dockerfile:
    return dockerfile.parse((FOLDER / f"{name}.Dockerfile").read_bytes(), path=name)


def test_none_is_forgotten() -> None:
    """Every file has an expectation."""
    assert sorted(path.stem for path in FOLDER.glob("*.Dockerfile")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_stages(name: str) -> None:
    """As many stages and steps as the file has."""
    _, stages = instructions.stages(read(name))
    assert [(stage.name, len(stage.steps)) for stage in stages] == EXPECTED[name][0]


@pytest.mark.parametrize("name", NAMES)
def test_lint(name: str) -> None:
    """Well-written files have no finding; those of older style have the ones that they deserve."""
    assert sorted({found.rule for found in lint.check(read(name))}) == EXPECTED[name][1]


@pytest.mark.parametrize("name", NAMES)
def test_everything_expands(name: str) -> None:
    """Every stage from its ARGs and ENVs alone, without an error and without a variable left over in a path."""
    metas, stages = instructions.stages(read(name))
    known: dict[str, str] = platforms.arguments(platforms.host(), platforms.host())
    for meta in metas:
        known |= {name: value for name, value in instructions.resolve_args(meta, known.get, {}) if value is not None}
    environments: dict[str, dict[str, str]] = {}
    for stage in stages:
        base = instructions.expanded(stage.base, known.get)
        assert "$" not in base.image
        values = dict(environments.get(base.image, {"PATH": "/bin", "APP_UID": "1654"}))
        for step in stage.steps:
            if isinstance(step, s.Arg):
                pairs = instructions.resolve_args(step, values.get, {}, known)
                values |= {name: value for name, value in pairs if value is not None}
            elif isinstance(step, s.Run):
                for mount in step.mounts:
                    instructions.parse_mount(mount, values.get)
                instructions.script(step)
            elif isinstance(step, s.Expose):
                assert instructions.exposed(step, values.get)
            else:
                done = instructions.expanded(step, values.get)
                if isinstance(done, s.Env):
                    values |= dict(done.pairs)
                if isinstance(done, s.FileStep):
                    assert not any("$" in path for path in (*done.sources, done.destination))
        environments[stage.name] = values


@requires(modules=("dockerfile",))
def test_buildkit_has_the_same_instructions() -> None:
    """Names and lines of all files are those of BuildKit's parser."""
    with Oracle() as oracle:
        for name in NAMES:
            text = (FOLDER / f"{name}.Dockerfile").read_bytes().decode()
            theirs = oracle.parse(text)
            assert not isinstance(theirs, str), (name, theirs)
            assert [(found["name"], *found["lines"]) for found in theirs] == [
                (at.name, at.line, at.end_line) for at in read(name).instructions
            ]


def test_particular_values() -> None:
    """Some that are easily got wrong."""
    _, java = instructions.stages(read("java-maven"))
    label = next(step for step in java[1].steps if isinstance(step, s.Label))
    assert (
        dict(instructions.expanded(label, expand.unset).pairs)["org.opencontainers.image.description"]
        == "An app in Java"
    )
    _, windows = instructions.stages(read("windows-escape"))
    assert instructions.expanded(windows[0].steps[1], expand.unset).asdict()["pairs"] == (("TARGET", "C:\\app\\bin"),)
    assert instructions.expanded(windows[0].steps[4], expand.unset).asdict()["destination"] == "C:\\app\\"
    metas, cuda = instructions.stages(read("cuda-ml"))
    assert metas[0].pairs == (("CUDA", "12.4.1"),)
    index = cuda[1].steps[1]
    assert isinstance(index, s.Arg)
    with_cuda = instructions.resolve_args(index, {"CUDA": "12.4.1"}.get, {})
    assert with_cuda == (("TORCH_INDEX", "https://download.pytorch.org/whl/cu1241"),)
    _, docs = instructions.stages(read("heredocs"))
    scripts = [instructions.script(step) for step in docs[0].steps if isinstance(step, s.Run)]
    assert [script.file is not None for script in scripts] == [False, False, False, True, False]
    with pytest.raises(UsageError):
        instructions.one("RUN <<EOF")
