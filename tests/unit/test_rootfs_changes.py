# SPDX-License-Identifier: Apache-2.0
"""`--change` of import: Dockerfile instructions that alter an image's config."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.rootfs.changes import apply, words
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
    ["RUN x", "COPY a b", "CMD", "ENV A", "ENV =x", "EXPOSE 0", "EXPOSE 99999", "EXPOSE 80/icmp", "EXPOSE ８０",
     "VOLUME data", 'SHELL ["', "SHELL sh", "LABEL 'open=1", "WORKDIR", ""],
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


def test_words_are_split_as_in_a_dockerfile() -> None:
    """Quotes hold blanks together, a backslash keeps the next character."""
    assert words("a  'b c' d\"e f\"g h\\ i") == ["a", "b c", "de fg", "h i"]
    assert words("''") == [""]
    assert words("") == []
