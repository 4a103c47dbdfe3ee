# SPDX-License-Identifier: Apache-2.0
"""`pyrun-oci features`, `spec` and `--version`: documents that other programs read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyrun.runtime.cli import oci, oci_spec
from pyrun.runtime.errors import Conflict
from pyrun.runtime.oci import features, json, spec, state, validate

if TYPE_CHECKING:
    from pathlib import Path


def test_features_are_what_the_checks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the validator refuses is not listed; were it not refused, it would be."""
    found = features.features()
    assert found["ociVersionMax"] == state.SPEC_VERSION
    assert {"ro", "rro", "rbind", "nosuid"} <= set(found["mountOptions"])
    assert "remount" not in found["mountOptions"]
    assert found["linux"]["apparmor"] == {"enabled": "apparmorProfile" not in validate._UNSUPPORTED_PROCESS}
    assert found["linux"]["netDevices"] == {"enabled": "netDevices" not in validate._UNSUPPORTED_LINUX}
    monkeypatch.setattr(validate, "_UNSUPPORTED_PROCESS", {})
    monkeypatch.setattr(validate, "_UNSUPPORTED_LINUX", {})
    changed = features.features()["linux"]
    assert changed["apparmor"]["enabled"]
    assert changed["netDevices"]["enabled"]


def test_seccomp_flag_of_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where notifications are refused, neither the action nor the flag that is for them alone is offered."""
    found = features.features()["linux"]["seccomp"]
    offered = "SCMP_ACT_NOTIFY" in found["actions"]
    assert ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" in found["supportedFlags"]) == offered
    assert set(found["supportedFlags"]) <= set(found["knownFlags"])


@pytest.mark.parametrize("rootless", [False, True])
def test_the_example_is_valid(rootless: bool) -> None:
    """`spec` writes a configuration that `create` takes, with a user namespace when it is for an ordinary user."""
    parsed = spec.parse(oci_spec.example(rootless=rootless))
    for check in validate.CHECKS:
        check(parsed)
    assert (parsed.linux.namespace("user") is not None) == rootless
    assert (parsed.linux.namespace("network") is None) == rootless


def test_spec_overwrites_nothing(tmp_path: Path) -> None:
    """config.json is written where there is none."""
    root = state.StateRoot(str(tmp_path / "state"))
    assert oci_spec.run(root, [], {"bundle": str(tmp_path)}) == 0
    written = (tmp_path / "config.json").read_bytes()
    assert json.loads(written, "config.json")["process"]["args"] == ["sh"]
    with pytest.raises(Conflict, match="exists"):
        oci_spec.run(root, [], {"bundle": str(tmp_path)})
    assert (tmp_path / "config.json").read_bytes() == written


def test_version_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A version, a commit and a spec, as docker looks for them."""
    oci.version()
    name, commit, spec_line = capsys.readouterr().out.splitlines()
    assert name.startswith("pyrun-oci version ")
    assert commit.startswith("commit: ")
    assert spec_line == f"spec: {state.SPEC_VERSION}"
