# SPDX-License-Identifier: Apache-2.0
"""A stage's state: paths, variables, times of the history; keys of the cache; excerpts of a failure."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.rootfs.build import dockerfile
from pyrun.runtime.engine.build import cache, failure
from pyrun.runtime.engine.build.cache import BuiltLayer
from pyrun.runtime.engine.build.stage import DEFAULT_PATH, State, absolute, quoted
from pyrun.runtime.errors import NotFound

PLATFORM = ("linux", "amd64", "")


def layer(number: int, created: str = "") -> BuiltLayer:
    """A layer that differs by its number."""
    return BuiltLayer(f"sha256:{number:064}", number, "type", f"sha256:{number:064}", f"sha256:c{number:063}", created)


@pytest.mark.parametrize(
    ("directory", "text", "path"),
    [
        ("/", "a", "/a"), ("/w", "a/", "/w/a/"), ("/w", ".", "/w/"), ("/w", "./", "/w/"), ("/w", "../x", "/x"),
        ("/w", "../../..", "/"), ("/w", "/abs//x/./y", "/abs/x/y"), ("/w/", "..", "/"), ("/", "/", "/"),
        ("/w", "a/..", "/w"),
    ],
)  # fmt: skip
def test_absolute(directory: str, text: str, path: str) -> None:
    """Paths are joined and cleaned as text; a trailing slash, which COPY needs, stays."""
    assert absolute(directory, text) == path


def test_variables() -> None:
    """ENV hides ARG; an ARG without a value is not set; the PATH that an image lacks is docker's."""
    state = State.scratch(PLATFORM)
    assert state.env == {"PATH": DEFAULT_PATH}
    for name, value in (("a", "arg"), ("b", "arg"), ("c", None)):
        state.set_arg(name, value)
    state.set_env("b", "env")
    state.set_env("PATH", "/x")
    assert [state.lookup(name) for name in ("a", "b", "c", "d")] == ["arg", "env", None, None]
    assert state.seen == {"a": "arg"}
    assert state.config["Env"] == ["PATH=/x", "b=env"]


def test_a_fork_is_a_copy() -> None:
    """What a stage upon another does leaves the other as it was; CMD counts as the base's."""
    state = State.scratch(PLATFORM)
    state.config["Labels"] = {"a": "1"}
    state.args["x"] = "1"
    state.cmd_is_set = True
    fork = state.fork()
    fork.config["Labels"]["b"] = "2"
    fork.set_env("n", "v")
    fork.args["x"] = "2"
    fork.commit("RUN x", layer(1))
    assert state.config["Labels"] == {"a": "1"}
    assert "n" not in state.env
    assert (state.args, state.layers, state.history) == ({"x": "1"}, (), [])
    assert not fork.cmd_is_set


def times(state: State, epoch: str = "") -> list[Any]:
    """The times of the history as the image has them."""
    return [item.get("created") for item in state.image({}, epoch)["history"]]


def test_times_come_from_layers() -> None:
    """An instruction without a layer has the time of the next new layer, or of the last one; so a rebuild has no new
    times."""
    state = State.scratch(PLATFORM)
    state.history = [{"created": "base", "created_by": "x"}]
    state.layers = (layer(0),)
    state.commit("ENV a")
    state.commit("RUN 1", layer(1, "t1"))
    state.commit("LABEL x")
    state.commit("COPY 2", layer(2, "t2"))
    state.commit("CMD y")
    assert times(state) == ["base", "t1", "t1", "t2", "t2", "t2"]
    assert state.image({}, "")["created"] == "t2"
    assert state.image({}, "epoch")["created"] == "epoch"


def test_only_metadata_has_the_time_of_the_base() -> None:
    """FROM and LABEL alone: the base's time, so that building it tomorrow gives the same id."""
    state = State.scratch(PLATFORM)
    state.history = [{"created": "base", "created_by": "x"}]
    state.commit("LABEL a=b")
    assert times(state) == ["base", "base"]


def test_image_leaves_out_what_is_empty() -> None:
    """Fields without a value are not in the document; labels of the command line come last."""
    state = State.scratch(PLATFORM)
    state.config |= {"Cmd": None, "Labels": {"a": "1", "b": "2"}, "Volumes": {}, "User": ""}
    document = state.image({"b": "3"}, "")
    assert document["config"] == {
        "Env": [f"PATH={DEFAULT_PATH}"],
        "WorkingDir": "/",
        "Labels": {"a": "1", "b": "3"},
    }
    assert document["rootfs"] == {"type": "layers", "diff_ids": []}


def test_quoted() -> None:
    """The exec form as docker writes it into the history."""
    assert quoted(["a b", 'c"d', "e\\f"]) == '["a b" "c\\"d" "e\\\\f"]'


def test_keys() -> None:
    """Equal inputs, whatever their order, have one key; everything else another; the kind counts."""
    one = cache.key_of("run", {"a": 1, "b": ["x", None]})
    assert one == cache.key_of("run", {"b": ["x", None], "a": 1})
    others = [
        cache.key_of("copy", {"a": 1, "b": ["x", None]}),
        cache.key_of("run", {"a": 1, "b": ["x", ""]}),
        cache.key_of("run", {"a": 1, "b": ["x"]}),
        cache.key_of("run", {"a": 1, "b": ["x", None], "c": None}),
        cache.key_of("run", {"a": "1", "b": ["x", None]}),
    ]
    assert len({one, *others}) == len(others) + 1
    assert len(cache.key_of("run", {"text": "\udcff ü"})) == 64


def test_records_of_other_versions_are_none() -> None:
    """A record that is not as this version writes it is no layer."""
    good = {"layer": layer(1, "t").asdict()}
    assert cache.layer_of(good) == layer(1, "t")
    fields = layer(1).asdict()
    wrong: list[dict[str, Any]] = [{"size": "1"}, {"size": None}, {"digest": 5}]
    records: list[dict[str, Any]] = [
        {},
        {"layer": {}},
        {"layer": "x"},
        *({"layer": {**fields, **one}} for one in wrong),
    ]
    for bad in records:
        assert cache.layer_of(bad) is None


def test_failure_names_the_line_once() -> None:
    """The place stands in front, the lines around it are shown, a second layer adds nothing."""
    file = dockerfile.parse(b"FROM a\n\n# note\nRUN one \\\n  two\nCOPY x /\nCMD y\nUSER z\nLABEL q=r\n", path="D")
    error = failure.at_line(NotFound("copy 'x'", "no such file", hint="h"), file, file.instructions[1])
    assert str(error) == "D:4: copy 'x': no such file"
    assert failure.report(error) == [
        "D:4",
        "-" * 20,
        "   1 |     FROM a",
        "   2 |",
        "   3 |     # note",
        "   4 | >>> RUN one \\",
        "   5 | >>>   two",
        "   6 |     COPY x /",
        "   7 |     CMD y",
        "   8 |     USER z",
        "-" * 20,
    ]
    assert str(failure.at_line(error, file, file.instructions[2])) == "D:4: copy 'x': no such file"


def test_report_of_a_failed_run_has_its_last_words() -> None:
    """The step and its output come first."""
    error = failure.StepFailed("process", "exit code: 1", code=1)
    error.name, error.tail = "[2/2] RUN x", ("one", "two")
    assert failure.report(error) == ["------", " > [2/2] RUN x:", "one", "two", "------"]
