# SPDX-License-Identifier: Apache-2.0
"""`--change` of import: Dockerfile instructions that alter an image's config."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.rootfs.changes import apply
from pyrun.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["python3", "app.py"]'], {"Cmd": ["python3", "app.py"]}),
        (["CMD echo hello"], {"Cmd": ["/bin/sh", "-c", "echo hello"]}),
        (['SHELL ["/bin/bash", "-c"]', "CMD x"], {"Shell": ["/bin/bash", "-c"], "Cmd": ["/bin/bash", "-c", "x"]}),
        (['ENTRYPOINT ["/init"]'], {"Entrypoint": ["/init"]}),
        (["ENV A=1 B='two words' C=\"x y\""], {"Env": ["A=1", "B=two words", "C=x y"]}),
        (["ENV A some text", "ENV A=2"], {"Env": ["A=2"]}),
        (["env a=b"], {"Env": ["a=b"]}),
        (["EXPOSE 80 53/udp 8000-8002"], {
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}}),
        (["VOLUME /data /logs"], {"Volumes": {"/data": {}, "/logs": {}}}),
        (['VOLUME ["/a b"]'], {"Volumes": {"/a b": {}}}),
        (["LABEL a=1 b.c='x'"], {"Labels": {"a": "1", "b.c": "x"}}),
        (["WORKDIR /a", "WORKDIR b"], {"WorkingDir": "/a/b"}),
        (["USER 1000:1000"], {"User": "1000:1000"}),
        (["STOPSIGNAL SIGINT"], {"StopSignal": "SIGINT"}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
    ],
)  # fmt: skip
def test_instructions_change_the_config(changes: list[str], expected: dict[str, Any]) -> None:
    """As docker import --change, in order, in docker's field names."""
    assert apply({}, changes) == expected


@pytest.mark.parametrize(
    "change",
    ["RUN x", "COPY a b", "CMD", "ENV A", "ENV =x", "EXPOSE a", "EXPOSE 99999", "EXPOSE 80/icmp", "EXPOSE ８０",
     "ENV A=1\nENV B=2", "USER ${A?}", "VOLUME data", 'SHELL ["', "SHELL sh", "LABEL 'open=1", "WORKDIR", ""],
)  # fmt: skip
def test_what_cannot_be_done_names_the_instruction(change: str) -> None:
    """Instructions that would have to run something, and malformed ones, are refused before anything is read."""
    with pytest.raises(UsageError):
        apply({}, [change])


def test_the_given_config_is_not_changed() -> None:
    """apply() works on a copy, down to the lists in it."""
    before = {"Env": ["A=1"], "Labels": {"x": "y"}, "Volumes": {"/v": {}}}
    apply(before, ["ENV B=2", "LABEL z=1", "VOLUME /w"])
    assert before == {"Env": ["A=1"], "Labels": {"x": "y"}, "Volumes": {"/v": {}}}


@pytest.mark.parametrize(
    ("before", "changes", "expected"),
    [
        ({"Env": ["PATH=/bin"]}, ["ENV PATH=$PATH:/x"], {"Env": ["PATH=/bin:/x"]}),
        ({"Env": ["D=/srv"]}, ["WORKDIR $D/a", "USER ${U:-me}"],
         {"Env": ["D=/srv"], "WorkingDir": "/srv/a", "User": "me"}),
        ({"Cmd": ["old"]}, ['ENTRYPOINT ["/init"]'], {"Entrypoint": ["/init"]}),
        ({"Cmd": ["old"]}, ["CMD [\"new\"]", 'ENTRYPOINT ["/init"]'], {"Entrypoint": ["/init"], "Cmd": ["new"]}),
        ({}, ["HEALTHCHECK --interval=5s CMD true"],
         {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9}}),
        ({}, ["LABEL a=\"x y\"b c=d\\ e"], {"Labels": {"a": "x yb", "c": "d e"}}),
    ],
)  # fmt: skip
def test_changes_follow_the_config_they_change(
    before: dict[str, Any], changes: list[str], expected: dict[str, Any]
) -> None:
    """Variables come from the config's Env; a new ENTRYPOINT drops the CMD of the old one, as in a build."""
    assert apply(before, changes) == expected


def test_an_error_names_the_change_and_what_was_meant() -> None:
    """The same words as for a Dockerfile, with the change instead of a line."""
    with pytest.raises(UsageError) as caught:
        apply({}, ["ENTRYPONT x"])
    assert str(caught.value) == "invalid change 'ENTRYPONT x': unknown instruction 'ENTRYPONT'"
    assert caught.value.hint == "did you mean ENTRYPOINT?"
    with pytest.raises(UsageError, match="RUN cannot be used here"):
        apply({}, ["RUN x"])
