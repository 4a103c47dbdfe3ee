# SPDX-License-Identifier: Apache-2.0
"""RUN --mount without a kernel: the step that takes a bind's place in the plan, and the targets that are refused."""

from __future__ import annotations

import pytest

from pyrun.runtime.engine.build import mounts
from pyrun.runtime.engine.build.mounts import RunMount
from pyrun.runtime.errors import UsageError
from pyrun.runtime.oci import plan, spec
from pyrun.runtime.oci import steps as s
from pyrun.runtime.oci.wire import Wire

TREE = s.BindTree("/place", ("/2/fs", "/1/fs"), "", "", "redirect_dir=nofollow", "sub", "/m", 1)
BIND = {"destination": "/m", "type": "bind", "source": "/1/fs", "options": ["rbind"]}


def parsed() -> spec.Spec:
    """A configuration with one bind mount."""
    return spec.parse(
        {
            "ociVersion": "1.2.0",
            "root": {"path": "/rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, BIND],
            "linux": {"namespaces": [{"type": "mount"}]},
            "process": {"args": ["sh"], "cwd": "/", "env": [], "user": {"uid": 0, "gid": 0}},
        }
    )


def test_the_step_stands_where_the_bind_stood() -> None:
    """A target with a step of its own gets that one, in the order of the configuration; others are bound as ever."""
    usual = plan.plan(parsed(), plan.Extras(root_path="/rootfs")).steps
    steps = plan.plan(parsed(), plan.Extras(root_path="/rootfs", instead=(("/m", TREE),))).steps
    assert [step for step in steps if step is not TREE] == [step for step in usual if not isinstance(step, s.Bind)]
    at = [isinstance(step, s.Bind) for step in usual].index(True)
    assert steps[at] is TREE


def test_the_step_in_the_words_of_mount() -> None:
    """Several layers take an overlay for a moment; one directory does not."""
    assert TREE.describe() == (
        "mount -t overlay overlay -o lowerdir=/2/fs:/1/fs /place; mount --bind -o ro /place/sub /m; umount /place"
    )
    assert TREE.replace(lower=("/1/fs",)).describe() == "mount --bind -o ro /1/fs/sub /m"
    throw_away = TREE.replace(lower=("/1/fs",), upper="/u", work="/w", attr_set=0)
    assert throw_away.describe() == (
        "mount -t overlay overlay -o lowerdir=/1/fs,upperdir=/u,workdir=/w /place; mount --bind /place/sub /m;"
        " umount /place"
    )


def test_the_step_can_be_encoded() -> None:
    """Its fields are the arguments of the wire operation."""
    Wire().add(TREE.op, TREE.args())


@pytest.mark.parametrize(
    "target", ["", "/", "x", "/a/", "/a/./b", "/a/..", "//a", "//proc", "/proc", "/proc/1/x", "/a\0b"]
)
def test_targets_that_are_refused(target: str) -> None:
    """Only clean absolute paths, not the root, nothing in procfs."""
    with pytest.raises(UsageError):
        mounts.check([RunMount("tmpfs", target)])


def test_targets_that_are_taken() -> None:
    """Two mounts on one target; but secrets that are only variables have none."""
    with pytest.raises(UsageError, match="two mounts"):
        mounts.check([RunMount("tmpfs", "/a"), RunMount("cache", "/a")])
    mounts.check([RunMount("secret", "", env="A"), RunMount("secret", "", env="B"), RunMount("tmpfs", "/process")])


def test_a_caches_first_content_is_part_of_what_it_is() -> None:
    """Another base, or another path of it, is another cache; without one, neither counts."""
    one = RunMount("cache", "/c", lowers=("/1/fs",), base="sha256:1", source="a")
    bases = {mounts.cache_base(one), mounts.cache_base(one.replace(base="sha256:2"))}
    bases |= {mounts.cache_base(one.replace(source="b")), mounts.cache_base(one.replace(lowers=()))}
    assert len(bases) == 4
    assert mounts.cache_base(RunMount("cache", "/c", source="x")) == mounts.cache_base(RunMount("cache", "/c")) == ""
