# SPDX-License-Identifier: Apache-2.0
"""runtime/oci/spec.py and process.py: config.json into records, and every mistake with its path."""

from __future__ import annotations

import copy
import inspect
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrun.runtime.engine import defaults, seccomp_profile
from pyrun.runtime.errors import SpecError
from pyrun.runtime.oci import process, seccomp, spec
from pyrun.runtime.oci.rlimits import Rlimit
from pyrun.runtime.record import Record


def docker_config() -> dict[str, Any]:
    """A configuration as docker writes it, with a bit of everything that docker does not."""
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": True,
            "consoleSize": {"height": 25, "width": 80},
            "user": {"uid": 1000, "gid": 1000, "umask": 18, "additionalGids": [0, 10]},
            "args": ["sh", "-c", "echo hällo"],
            "env": [f"PATH={defaults.PATH}", "EMPTY="],
            "cwd": "/srv",
            "capabilities": {kind: ["CAP_CHOWN", "CAP_NEW_ONE"] for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2**64 - 1}],
            "noNewPrivileges": True,
            "oomScoreAdj": -500,
            "scheduler": {"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "execCPUAffinity": {"initial": "7", "final": "0-3,7"},
            "someday": {"unknown": 1},
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "web",
        "domainname": "example.org",
        "mounts": [
            *defaults.mounts(),
            {"destination": "/data", "source": "vol", "options": ["rbind", "ro"], "type": "bind"},
            {
                "destination": "relative",
                "type": "none",
                "source": "/x",
                "options": ["bind", "idmap"],
                "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            },
        ],
        "hooks": {"prestart": [{"path": "/bin/hook", "args": ["hook", "1"], "env": ["A=1"], "timeout": 5}]},
        "annotations": {"org.example.key": "value", "empty": ""},
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}, {"type": "mount", "path": ""}],
            "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
            "gidMappings": [],
            "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 10}, "boottime": {}},
            "devices": [
                {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 0o20666, "uid": 0, "gid": 0},
                {"type": "p", "path": "/dev/pipe"},
            ],
            "netDevices": {"eth0": {"name": "inner"}, "eth1": {}},
            "cgroupsPath": "/docker/abc",
            "rootfsPropagation": "slave",
            "seccomp": seccomp_profile.resolve(seccomp_profile.load(""), defaults.CAPABILITIES),
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "label",
            "resources": {"memory": {"limit": 1 << 20}, "devices": defaults.device_rules(), "pids": {"limit": -1}},
            "personality": {"domain": "LINUX32", "flags": []},
            "intelRdt": {"closID": "a", "schemata": ["L3:0=f"], "enableMonitoring": True},
            "memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        },
    }


def test_everything_is_read() -> None:
    """Every field of a full configuration arrives under its own name, with its own type."""
    found = spec.parse(docker_config())
    run = found.process
    assert run is not None
    assert (run.user.uid, run.user.umask, run.user.additional_gids) == (1000, 0o22, (0, 10))
    assert run.args == ("sh", "-c", "echo hällo")
    assert run.rlimits == (Rlimit("RLIMIT_NOFILE", 1024, 2**64 - 1),)
    assert run.capabilities is not None
    assert run.capabilities.bounding == ("CAP_CHOWN", "CAP_NEW_ONE")
    assert run.capabilities.ambient == ()
    assert run.io_priority is not None
    assert run.io_priority.class_ == "IOPRIO_CLASS_BE"
    assert run.oom_score_adj == -500
    assert found.root == spec.Root("rootfs", True)
    assert [mount.destination for mount in found.mounts[-2:]] == ["/data", "/relative"]
    assert found.mounts[-2].options.readonly
    assert found.mounts[-1].uid_mappings == (spec.IDMapping(0, 1000, 1),)
    assert found.hooks.prestart == (spec.Hook("/bin/hook", ("hook", "1"), ("A=1",), 5),)
    assert found.hooks.poststop == ()
    assert found.annotations == {"org.example.key": "value", "empty": ""}
    linux = found.linux
    assert linux.namespace("network") == spec.Namespace("network", "/run/netns/x")
    assert linux.namespace("mount") == spec.Namespace("mount", "")
    assert linux.namespace("user") is None
    assert linux.time_offsets == {"monotonic": spec.TimeOffset(-5, 10), "boottime": spec.TimeOffset(0, 0)}
    assert linux.devices[0] == spec.Device("c", "/dev/fuse", 10, 229, 0o666, 0, 0)
    assert linux.devices[1] == spec.Device("p", "/dev/pipe")
    assert linux.net_devices == {"eth0": spec.NetDevice("inner"), "eth1": spec.NetDevice("")}
    assert linux.resources is not None
    assert linux.resources.memory.limit == 1 << 20
    assert linux.seccomp is not None
    assert linux.seccomp.default_action == "SCMP_ACT_ERRNO"
    assert linux.personality == spec.Personality("LINUX32")


def test_a_minimal_configuration() -> None:
    """Only ociVersion is needed to parse; all else has a default, and null is the same as absent."""
    assert spec.parse({"ociVersion": "1.0.2-dev"}) == spec.Spec("1.0.2-dev")
    assert spec.parse({"ociVersion": "1.0.0", "process": None, "mounts": None, "linux": None}) == spec.Spec("1.0.0")


def test_specs_are_frozen_and_comparable() -> None:
    """Two readings of one document are equal, and none can be changed."""
    first, second = spec.parse(docker_config()), spec.parse(docker_config())
    assert first == second
    with pytest.raises(AttributeError):
        first.hostname = "other"  # type: ignore[misc]


@pytest.mark.parametrize("module", [spec, process, seccomp, seccomp_profile])
def test_every_record_has_a_docstring_and_immutable_defaults(module: Any) -> None:
    """Records share their defaults between instances, so none may be a list or a dict."""
    records = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Record) and kind is not Record
    ]
    assert records
    for kind in records:
        assert kind.__doc__
        for name in kind._fields:
            assert not isinstance(getattr(kind, name, None), list | dict | set), f"{kind.__name__}.{name}"


def test_exec_process() -> None:
    """`exec --process` reads a bare process document, with its own name in messages."""
    found = spec.parse_process({"args": ["id"], "cwd": "/", "user": {"uid": 1}})
    assert found.user == spec.User(1, 0, None, ())
    with pytest.raises(SpecError, match=r"^process\.json: args\[1\]: expected a string, got a number$"):
        spec.parse_process({"args": ["id", 3], "cwd": "/"})


DELETE = object()

MISTAKES: list[tuple[str, Any, str]] = [
    ("ociVersion", DELETE, "config.json: 'ociVersion' is missing"),
    ("ociVersion", "1.3", "ociVersion: '1.3' is not a version such as 1.3.0"),
    ("ociVersion", "2.0.0", "ociVersion: version 2.0.0 is not compatible with 1.3"),
    ("ociVersion", "1.٣.0", "ociVersion: '1.٣.0' is not a version such as 1.3.0"),
    ("process", [], "process: expected an object, got an array"),
    ("process.args", DELETE, "process: 'args' is missing"),
    ("process.args", [], "process.args: needs at least one entry, the program"),
    ("process.args", "sh", "process.args: expected an array, got a string"),
    ("process.args.1", "a\0b", "process.args[1]: contains a NUL byte"),
    ("process.args.2", "\ud800", "process.args[2]: contains half of a surrogate pair, which is no character"),
    ("process.cwd", DELETE, "process: 'cwd' is missing"),
    ("process.cwd", "srv", "process.cwd: 'srv' is not an absolute path"),
    ("process.cwd", "", "process.cwd: '' is not an absolute path"),
    ("process.env.0", "PATH", "process.env[0]: 'PATH' is not of the form NAME=value"),
    ("process.env.0", "=x", "process.env[0]: '=x' is not of the form NAME=value"),
    ("process.terminal", 1, "process.terminal: expected a boolean, got a number"),
    ("process.terminal", "true", "process.terminal: expected a boolean, got a string"),
    ("process.user.uid", -1, "process.user.uid: -1 is not between 0 and 4294967294"),
    ("process.user.uid", 2**32 - 1, "process.user.uid: 4294967295 is not between 0 and 4294967294"),
    ("process.user.gid", True, "process.user.gid: expected a whole number, got a boolean"),
    ("process.user.gid", 1.0, "process.user.gid: expected a whole number, got a fraction"),
    ("process.user.gid", "0", "process.user.gid: expected a whole number, got a string"),
    ("process.user.umask", 0o1000, "process.user.umask: 512 is not between 0 and 511"),
    ("process.user.additionalGids.1", 2**70, "process.user.additionalGids[1]: 1180591620717411303424 is not between"),
    ("process.consoleSize.width", DELETE, "process.consoleSize: 'width' is missing"),
    ("process.capabilities.bounding", "CAP_CHOWN", "process.capabilities.bounding: expected an array, got a string"),
    ("process.rlimits.0.type", "NOFILE", "process.rlimits[0].type: unknown resource 'NOFILE'"),
    ("process.rlimits.0.soft", -1, "process.rlimits[0].soft: -1 is not between 0 and 18446744073709551615"),
    ("process.rlimits.0.hard", 1, "process.rlimits[0].soft: 1024 is above the hard limit, 1"),
    (
        "process.rlimits.1",
        {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1},
        "process.rlimits[1].type: RLIMIT_NOFILE occurs twice",
    ),
    ("process.oomScoreAdj", 1001, "process.oomScoreAdj: 1001 is not between -1000 and 1000"),
    ("process.scheduler.policy", "SCHED_RT", "process.scheduler.policy: unknown scheduling policy 'SCHED_RT'"),
    ("process.ioPriority.priority", 8, "process.ioPriority.priority: 8 is not between 0 and 7"),
    ("root", {}, "root: 'path' is missing"),
    ("root.path", "", "root.path: is empty"),
    ("hostname", 1, "hostname: expected a string, got a number"),
    ("mounts", {}, "mounts: expected an array, got an object"),
    ("mounts.0", None, "mounts[0]: expected an object, got a NoneType"),
    ("mounts.0.destination", DELETE, "mounts[0]: 'destination' is missing"),
    ("mounts.0.destination", "", "mounts[0].destination: is empty"),
    ("mounts.3.options.1", "nosuidd", "mounts[3].options[1]: unknown option 'nosuidd'"),
    ("mounts.8.uidMappings.0.size", 0, "mounts[8].uidMappings[0].size: 0 is not between 1 and 4294967295"),
    ("mounts.8.uidMappings.0.size", 2**32 - 1, "mounts[8].uidMappings[0]: hostID 1000 and size 4294967295 go beyond"),
    ("hooks.prestart.0.path", "hook", "hooks.prestart[0].path: 'hook' is not an absolute path"),
    ("hooks.prestart.0.timeout", 0, "hooks.prestart[0].timeout: 0 is not between 1 and 2147483647"),
    ("annotations", {"": "x"}, "annotations: is empty"),
    ("annotations", {"a.b": 1}, 'annotations["a.b"]: expected a string, got a number'),
    ("linux.namespaces.0.type", "net", "linux.namespaces[0].type: unknown namespace type 'net'"),
    ("linux.namespaces.0.path", "x", "linux.namespaces[0].path: 'x' is not an absolute path"),
    ("linux.timeOffsets", {"realtime": {}}, "linux.timeOffsets: unknown clock 'realtime'"),
    ("linux.timeOffsets.boottime.nanosecs", 10**9, "linux.timeOffsets.boottime.nanosecs: 1000000000 is not between"),
    ("linux.devices.0.type", "a", "linux.devices[0].type: unknown device type 'a'"),
    ("linux.devices.0.major", DELETE, "linux.devices[0]: 'major' is missing"),
    ("linux.devices.0.major", 4096, "linux.devices[0].major: 4096 is not between 0 and 4095"),
    ("linux.devices.0.path", "dev/x", "linux.devices[0].path: 'dev/x' is not an absolute path"),
    ("linux.rootfsPropagation", "sharde", "linux.rootfsPropagation: unknown propagation 'sharde'"),
    ("linux.seccomp.defaultAction", DELETE, "linux.seccomp: 'defaultAction' is missing"),
    ("linux.seccomp.syscalls.0.action", "ALLOW", "linux.seccomp.syscalls[0].action: unknown action 'ALLOW'"),
    ("linux.sysctl", {"kernel.shmmax": 1}, 'linux.sysctl["kernel.shmmax"]: expected a string, got a number'),
    ("linux.maskedPaths.0", "proc", "linux.maskedPaths[0]: 'proc' is not an absolute path"),
    ("linux.readonlyPaths.0", "", "linux.readonlyPaths[0]: '' is not an absolute path"),
    ("linux.resources.memory.limit", "1g", "linux.resources.memory.limit"),
    ("linux.personality.domain", "BSD", "linux.personality.domain: unknown domain 'BSD'"),
    ("linux.personality.flags", ["SHORT_INODE"], "linux.personality.flags[0]: unknown flag 'SHORT_INODE'"),
    ("linux.memoryPolicy.flags.0", "X", "linux.memoryPolicy.flags[0]: unknown policy flag 'X'"),
]


def change(document: Any, path: str, value: Any) -> Any:
    """A copy of `document` with the value at the dotted `path` replaced, added or, for DELETE, taken away."""
    made = copy.deepcopy(document)
    *above, last = path.split(".")
    at = made
    for step in above:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if isinstance(at, list):
        at[int(last) : int(last) + 1] = [value]
    elif value is DELETE:
        del at[last]
    else:
        at[last] = value
    return made


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES)
def test_mistakes(path: str, value: Any, message: str) -> None:
    """Each wrong value is refused, and the message starts with where it stands."""
    with pytest.raises(SpecError) as caught:
        spec.parse(change(docker_config(), path, value))
    assert str(caught.value).startswith("config.json: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("document", [None, 1, "x", [], True])
def test_documents_that_are_no_object(document: object) -> None:
    """A document that is not an object is refused under its own name."""
    with pytest.raises(SpecError, match=r"^bundle/config\.json: expected an object, got "):
        spec.parse(document, "bundle/config.json")


def test_hint_names_the_nearest_word() -> None:
    """A mistyped word of a known list comes back with a suggestion."""
    with pytest.raises(SpecError) as caught:
        spec.parse(change(docker_config(), "linux.namespaces.0.type", "netwrok"))
    assert caught.value.hint == "did you mean 'network'?"


def test_reading_a_configuration_is_cheap() -> None:
    """Every `pyrun-oci` command pays for what parsing imports: nothing of the standard library that is slow to load."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from pyrun.runtime.oci import json, spec, validate\n"
        "found = spec.parse(json.loads(sys.stdin.buffer.read(), 'config.json'))\n"
        "for check in validate.CHECKS[:-1]: check(found)\n"
        "slow = {'json', 're', 'enum', 'hashlib', 'typing', 'dataclasses', 'contextlib', 'functools', 'socket'}\n"
        "print(*sorted((set(sys.modules) - before) & slow), *(m for m in sys.modules if m.endswith('_seccomp')))\n"
    )
    made = docker_config()
    made["linux"]["namespaces"] += [{"type": kind} for kind in ("uts", "user", "time")]
    made["process"]["scheduler"] = None
    made["linux"]["gidMappings"] = made["linux"]["uidMappings"]
    made["linux"]["cgroupsPath"] = "/a"
    ran = subprocess.run([sys.executable, "-c", code], input=json.dumps(made), capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr


def paths(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [above] + [place for key, child in children for place in paths(child, (*above, key))]


BASE = docker_config()
BASE["linux"]["seccomp"]["syscalls"] = BASE["linux"]["seccomp"]["syscalls"][-4:]
ODD: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(
        ["", "/", "..", "\0", "\ud800", "a" * 5000, "1.0.0", "c", "-1", "1_0", "٣", -1, 2**32, 2**64, 10**40]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(paths(BASE)), ODD)
def test_one_wrong_value_anywhere(place: tuple[Any, ...], value: Any) -> None:
    """Whatever stands anywhere in a configuration, the outcome is a Spec or a SpecError with a path."""
    document = copy.deepcopy(BASE)
    if not place:
        document = value
    else:
        at: Any = document
        for step in place[:-1]:
            at = at[step]
        at[place[-1]] = value
    outcome: object
    try:
        outcome = spec.parse(document)
    except SpecError as error:
        outcome = str(error)
    assert isinstance(outcome, spec.Spec) or str(outcome).startswith("config.json: ")


@settings(max_examples=200, deadline=None)
@given(ODD)
def test_any_document(value: Any) -> None:
    """The same for documents that have nothing of a configuration."""
    for parse in (spec.parse, spec.parse_process):
        with pytest.raises(SpecError):
            parse(value)


def test_the_fuzzed_base_is_valid() -> None:
    """The document that the fuzzing changes is itself accepted, so that a refusal is the change's doing."""
    spec.parse(json.loads(json.dumps(BASE)))
