# SPDX-License-Identifier: Apache-2.0
"""image prune, system prune, system df: what is counted, what goes, what stays."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from pyrun.rootfs.store import ImageStore
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli import Pyrun

pytestmark = requires(root=True)


@pytest.fixture
def fresh(other_pyrun: Callable[[], Pyrun], busybox_tar: str) -> Pyrun:
    """Roots with busybox:latest, a container of it that has ended (done) with an anonymous volume, and one that runs
    (web) with the volume named kept."""
    pyrun = other_pyrun()
    pyrun.ok("import", "-c", 'CMD ["sh"]', "-c", "LABEL role=base", busybox_tar, "busybox:latest")
    script = "echo hello >/file; echo there >/vol/file"
    pyrun.ok("run", "--network", "none", "--name", "done", "-v", "/vol", "busybox", "sh", "-c", script)
    pyrun.ok("run", "-d", "--network", "none", "--name", "web", "-v", "kept:/v", "busybox", "sleep", "1000")
    return pyrun


def names(pyrun: Pyrun) -> set[str]:
    return set(pyrun.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split())


def sums(pyrun: Pyrun) -> dict[str, dict[str, str]]:
    lines = pyrun.ok("system", "df", "--format", "json").splitlines()
    return {found["Type"]: found for found in map(json.loads, lines)}


def commit(pyrun: Pyrun, name: str, content: str, *flags: str) -> str:
    """An image with one more file than busybox; its id."""
    pyrun.ok("run", "--network", "none", "--name", "maker", "busybox", "sh", "-c", f"echo {content} >/made")
    try:
        return pyrun.ok("commit", *flags, "maker", name)
    finally:
        pyrun.ok("rm", "maker")


# image prune ---------------------------------------------------------------------------------------------------------


def test_image_prune_takes_images_without_a_name(fresh: Pyrun) -> None:
    """Their layers and blobs too, and the bytes are told; -a takes named ones that no container was made from."""
    old = commit(fresh, "app:1", "old")
    commit(fresh, "app:1", "new")
    commit(fresh, "spare:1", "spare")
    layers = len(os.listdir(f"{fresh.paths.data}/layers"))
    done = fresh.ok("image", "prune", "-f").splitlines()
    assert done[:2] == ["Deleted Images:", f"Deleted: {old}"]
    assert done[-1].startswith("Total reclaimed space: ")
    assert done[-1] != "Total reclaimed space: 0B"
    assert len(os.listdir(f"{fresh.paths.data}/layers")) == layers - 1
    assert names(fresh) == {"busybox:latest", "app:1", "spare:1"}
    fresh.ok("run", "-d", "--network", "none", "--name", "user", "app:1", "sleep", "1000")
    done = fresh.ok("image", "prune", "-af").splitlines()
    assert "Untagged: spare:1" in done
    assert names(fresh) == {"busybox:latest", "app:1"}  # busybox: done and web were made from it


def test_image_prune_asks(fresh: Pyrun) -> None:
    """Only y is a yes."""
    old = commit(fresh, "app:1", "old")
    commit(fresh, "app:1", "new")
    asked = fresh("image", "prune", stdin="n\n")
    assert asked.rc == 0
    assert asked.out == "This removes all images without a name. Go on? [y/N] "
    assert fresh.ok("images", "-q", "--no-trunc", "-f", "dangling=true") == old
    assert f"Deleted: {old}" in fresh("image", "prune", stdin="y\n").out


@pytest.mark.parametrize("kind", ["image", "system", "container", "volume", "builder"])
def test_the_end_of_input_is_no_answer(fresh: Pyrun, kind: str) -> None:
    """The prompt's line ends, and a script learns that nothing was done."""
    asked = fresh(kind, "prune", stdin="")
    assert asked.rc == 1
    assert asked.out.endswith("Go on? [y/N] \n")
    assert asked.err.startswith("pyrun: nothing was removed: ")
    assert len(fresh.ok("ps", "-aq").splitlines()) == 2


def test_image_prune_filters(fresh: Pyrun) -> None:
    """until is about the image's age; label and label! about its labels."""
    commit(fresh, "app:1", "one", "-c", "LABEL team=a")
    commit(fresh, "app:2", "two", "-c", "LABEL team=b")
    for words in (("until=1h",), ("label=team=c",), ("label!=team",), ("until=1h", "label=team=a")):
        flags = [flag for word in words for flag in ("--filter", word)]
        assert fresh.ok("image", "prune", "-af", *flags) == "Total reclaimed space: 0B", words
    fresh.ok("image", "prune", "-af", "--filter", "label=team=a", "--filter", "until=1ms")
    assert names(fresh) == {"busybox:latest", "app:2"}
    fresh.ok("image", "prune", "-af", "--filter", "label!=nosuch")
    assert names(fresh) == {"busybox:latest"}
    bad = fresh("image", "prune", "-f", "--filter", "untl=1h")
    assert (bad.rc, bad.err) == (125, "pyrun: --filter untl=1h: unknown filter 'untl'\nhint: did you mean 'until'?\n")
    bad = fresh("image", "prune", "-f", "--filter", "until=soon")
    assert bad.rc == 125
    assert "not a time" in bad.err


# system prune --------------------------------------------------------------------------------------------------------


def test_system_prune_takes_what_nothing_needs(fresh: Pyrun) -> None:
    """Stopped containers and images without a name; what runs, its volume and named images stay."""
    done_id = fresh.ok("inspect", "-f", "{{.Id}}", "done")
    old = commit(fresh, "app:1", "old")
    commit(fresh, "app:1", "new")
    done = fresh.ok("system", "prune", "-f").splitlines()
    assert done[:2] == ["Deleted Containers:", done_id]
    assert f"Deleted: {old}" in done
    assert fresh.ok("ps", "-a", "--format", "{{.Names}}") == "web"
    assert names(fresh) == {"busybox:latest", "app:1"}
    assert len(fresh.ok("volume", "ls", "-q").splitlines()) == 2
    done = fresh.ok("system", "prune", "-f", "--volumes").splitlines()
    assert done[0] == "Deleted Volumes:"
    assert fresh.ok("volume", "ls", "-q") == "kept"


def test_system_prune_all_takes_images_without_a_container(fresh: Pyrun) -> None:
    """Also the base of one: its layers stay as long as they are needed."""
    commit(fresh, "app:1", "new")
    fresh.ok("run", "-d", "--network", "none", "--name", "user", "app:1", "sleep", "1000")
    fresh.ok("rm", "-f", "web")
    fresh.ok("system", "prune", "-af")
    assert names(fresh) == {"app:1"}
    assert fresh.ok("exec", "user", "cat", "/made") == "new"
    fresh.ok("rm", "-f", "user")
    assert fresh.ok("run", "--rm", "--network", "none", "app:1", "cat", "/made") == "new"


def test_system_prune_asks_and_says_what_for(fresh: Pyrun) -> None:
    """With -a and --volumes it is more; a filter by age does not go with --volumes."""
    asked = fresh("system", "prune", stdin="\n").out
    assert asked.startswith("This removes:\n  - all stopped containers\n  - all images without a name\n")
    asked = fresh("system", "prune", "-a", "--volumes", stdin="\n").out
    assert "  - all anonymous volumes that no container has\n  - all images that no container has\n" in asked
    assert len(fresh.ok("ps", "-aq").splitlines()) == 2
    bad = fresh("system", "prune", "-f", "--volumes", "--filter", "until=1h")
    assert bad.rc == 125
    assert "--filter until does not go with --volumes" in bad.err
    assert fresh.ok("system", "prune", "-f", "--filter", "until=1h") == "Total reclaimed space: 0B"
    assert fresh.ok("container", "prune", "-f", "--filter", "label!=role") == "Total reclaimed space: 0B"


# system df -----------------------------------------------------------------------------------------------------------


def test_df_counts_and_what_prune_would_free(fresh: Pyrun) -> None:
    """Every layer once, however many images have it; volumes; what a container wrote."""
    before = sums(fresh)
    assert [before[kind]["TotalCount"] for kind in before] == ["1", "2", "2", "0"]
    assert [before[kind]["Active"] for kind in before] == ["1", "1", "2", "0"]
    assert before["Containers"]["Size"] == before["Containers"]["Reclaimable"].partition(" ")[0] == "6B"
    assert before["Local Volumes"]["Size"] == "6B"
    assert before["Images"]["Reclaimable"].startswith("0B")
    commit(fresh, "app:1", "x")
    fresh.ok("tag", "app:1", "app:2")
    after = sums(fresh)
    assert (after["Images"]["TotalCount"], after["Images"]["Active"]) == ("2", "1")
    store = ImageStore(fresh.paths)
    image = store.resolve("app:1")
    blob = image.layers[-1].size
    assert after["Images"]["Reclaimable"] == f"{blob + 2}B (0%)"  # the file "x\n", and the blob it came as
    fresh.ok("rm", "done")
    assert sums(fresh)["Local Volumes"]["Reclaimable"] == "6B (100%)"


def test_df_in_detail(fresh: Pyrun) -> None:
    """-v lists each image with what it shares, each container, volume and cache entry; as JSON too."""
    commit(fresh, "app:1", "x")
    text = fresh.ok("system", "df", "-v")
    for title in (
        "Images space usage:",
        "Containers space usage:",
        "Local Volumes space usage:",
        "Build cache usage: 0B",
    ):
        assert title in text.splitlines()
    found = json.loads(fresh.ok("system", "df", "-v", "--format", "json"))
    images = {row["Repository"]: row for row in found["Images"]}
    assert (images["app"]["UniqueSize"], images["app"]["Containers"]) == ("2B", "0")
    assert images["busybox"]["Containers"] == "2"
    assert images["app"]["SharedSize"] == images["busybox"]["SharedSize"]
    assert {row["Names"]: row["Size"] for row in found["Containers"]} == {"web": "0B", "done": "6B"}
    assert {row["Links"] for row in found["Volumes"]} == {"1"}
    assert found["BuildCache"] == []
    assert fresh("system", "df", "-v", "--format", "{{.Type}}").rc == 125


def test_df_of_nothing(other_pyrun: Callable[[], Pyrun]) -> None:
    """Before anything is there it is all zeros."""
    lines = other_pyrun().ok("system", "df").splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["0B"] * 4


def test_build_cache_is_counted_and_pruned(fresh: Pyrun) -> None:
    """Layers that only a build wants again go with system prune; cache mounts with -a."""
    context = f"{os.path.dirname(fresh.paths.data)}/context"
    os.makedirs(context)
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write("FROM busybox\nRUN --mount=type=cache,target=/c echo 12345 >/c/f; echo made >/made\n")
    fresh.ok("build", "-t", "built:1", context, timeout=120)
    cache = sums(fresh)["Build Cache"]
    assert int(cache["TotalCount"]) >= 2
    fresh.ok("rmi", "built:1")
    assert int(sums(fresh)["Build Cache"]["TotalCount"]) >= 2
    assert "Deleted build cache objects:" in fresh.ok("system", "prune", "-f")
    assert sums(fresh)["Build Cache"]["TotalCount"] == "1"  # the cache mount
    fresh.ok("system", "prune", "-af")
    assert sums(fresh)["Build Cache"]["TotalCount"] == "0"


def test_what_df_calls_reclaimable_is_what_builder_prune_gives(fresh: Pyrun) -> None:
    """Without -a what no image has goes, and what stays is said; with -a the number of df, failed steps included."""
    context = f"{os.path.dirname(fresh.paths.data)}/context"
    os.makedirs(context)
    mount = "--mount=type=cache,target=/c"
    for name, last in (("good", "true"), ("bad", "false")):
        with open(f"{context}/{name}", "w", encoding="utf-8") as file:
            file.write(f"FROM busybox\nRUN {mount} head -c 50000 /dev/zero >/c/f; echo {name} >/made\nRUN {last}\n")
    fresh.ok("build", "-t", "built:1", "-f", f"{context}/good", context, timeout=120)
    assert fresh("build", "-f", f"{context}/bad", context, timeout=120).rc != 0
    done = fresh("builder", "prune", "-f")
    lines = done.out.splitlines()
    assert lines[0].split("  ")[0] == "ID", "the layer of the build that failed"
    assert lines[0].split()[1:] == ["RECLAIMABLE", "SIZE", "LAST", "ACCESSED"]
    assert lines[1].split()[1] == "true"
    left = sums(fresh)["Build Cache"]["Reclaimable"].partition(" ")[0]
    assert left != "0B"
    assert done.err == f"pyrun builder prune -a removes the rest: {left}\n"
    rest = fresh("builder", "prune", "-af")
    assert (rest.err, rest.out.splitlines()[-1]) == ("", f"Total:\t{left}")
    assert sums(fresh)["Build Cache"]["Size"] == "0B"
    assert fresh("builder", "prune", "-f").out == "Total:\t0B\n"
    assert names(fresh) == {"busybox:latest", "built:1"}
