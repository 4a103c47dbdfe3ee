# SPDX-License-Identifier: Apache-2.0
"""RunOptions as JSON, and back."""

from __future__ import annotations

import json

import pytest

from pyrun.netns.ports import PortSpec
from pyrun.runtime.engine.options import (
    DeviceOption,
    MountOption,
    RestartPolicy,
    RunOptions,
    Ulimit,
)

FULL = RunOptions(
    image="flask-app",
    command=("python", "app.py"),
    name="web",
    entrypoint=(),
    env=(("A", "1"), ("B", "\udcff")),
    mounts=(
        MountOption("bind", "/a", "/b", readonly=True, driver_opts=(("o", "x"),), labels=(("l", "m"),)),
        MountOption("tmpfs", "", "/t", tmpfs_size=5, tmpfs_options=("noexec",)),
    ),
    devices=(DeviceOption("/dev/fuse", "/dev/fuse"),),
    publish=(PortSpec(80, "udp", "::1", 8080, 8090),),
    ulimits=(Ulimit("nofile", 1, 2),),
    restart=RestartPolicy("on-failure", 3),
    add_hosts=(("db", "10.0.0.1"),),
    device_read_bps=(("/dev/sda", 5),),
    cpus=1.5,
    memory=1 << 30,
    stop_timeout=0,
    sig_proxy=False,
)


@pytest.mark.parametrize("options", [RunOptions("x"), FULL])
def test_round_trip_through_json(options: RunOptions) -> None:
    """What to_json() writes, through a real JSON text, from_json() reads as an equal object."""
    assert RunOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_defaults_are_not_written() -> None:
    """The JSON shows what was asked for and nothing else; a falsy value that was asked for is there."""
    assert RunOptions("x").to_json() == {"image": "x"}
    assert FULL.to_json()["entrypoint"] == []
    assert FULL.to_json()["stop_timeout"] == 0
    assert FULL.to_json()["sig_proxy"] is False
    assert FULL.to_json()["restart"] == {"name": "on-failure", "max_retries": 3}


def test_unknown_fields_are_refused() -> None:
    """A file of a later version is not half understood."""
    with pytest.raises(TypeError, match="colour"):
        RunOptions.from_json({"image": "x", "colour": "red"})


def test_options_are_frozen_and_hashable() -> None:
    """Records can be shared between threads of thought."""
    assert len({FULL, FULL.replace(name="other"), FULL.replace()}) == 2
    with pytest.raises(AttributeError):
        FULL.name = "x"  # type: ignore[misc]  # that is the point
