# SPDX-License-Identifier: Apache-2.0
"""Remembered digests of files: never that of another state of the file, and no harm from a damaged memory."""

from __future__ import annotations

import os
from pathlib import Path

from pyrun.rootfs.build import hashes
from pyrun.rootfs.build.hashes import Hashes, now_ns

LATER = 3600 * 10**9


def settle(path: Path) -> int:
    """A time at which the file has long been as it is."""
    return path.stat().st_ctime_ns + LATER


def test_a_digest_is_remembered_between_builds(tmp_path: Path) -> None:
    """put, save, and a new object has it."""
    file = tmp_path / "a"
    file.write_text("x")
    memory = Hashes(str(tmp_path / "memory"))
    memory.put(file.stat(), b"d" * 32, settle(file))
    memory.save()
    assert Hashes(str(tmp_path / "memory")).get(file.stat()) == b"d" * 32


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    """It could be written again within the same tick of the clock and look the same (git's racy timestamps)."""
    file = tmp_path / "a"
    file.write_text("x")
    memory = Hashes()
    memory.put(file.stat(), b"d" * 32, now_ns())
    assert memory.get(file.stat()) is None


def test_a_file_from_the_future_is_not_remembered(tmp_path: Path) -> None:
    """Its next change may well be stamped earlier or the same."""
    file = tmp_path / "a"
    file.write_text("x")
    memory = Hashes()
    memory.put(file.stat(), b"d" * 32, file.stat().st_ctime_ns - LATER)
    assert memory.get(file.stat()) is None


def test_every_change_of_state_is_noticed(tmp_path: Path) -> None:
    """Same size and a restored mtime do not help: the ctime moves. Nor does a file put in its place."""
    file = tmp_path / "a"
    file.write_text("one")
    info = file.stat()
    memory = Hashes()
    memory.put(info, b"d" * 32, settle(file))
    file.write_text("two")
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert memory.get(file.stat()) is None
    other = tmp_path / "b"
    other.write_text("one")
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    other.rename(file)
    assert memory.get(file.stat()) is None


def test_damage_is_as_good_as_nothing(tmp_path: Path) -> None:
    """A cut file, a changed byte, another format: no digest, no error, and it is written anew."""
    file, path = tmp_path / "a", tmp_path / "memory"
    file.write_text("x")
    memory = Hashes(str(path))
    memory.put(file.stat(), b"d" * 32, settle(file))
    memory.save()
    good = path.read_bytes()
    for bad in (b"", good[:-1], good[:40], good[:-1] + b"x", b"other" + good, good + good[-72:]):
        path.write_bytes(bad)
        again = Hashes(str(path))
        assert again.get(file.stat()) is None
    again.put(file.stat(), b"e" * 32, settle(file))
    again.save()
    assert Hashes(str(path)).get(file.stat()) == b"e" * 32


def test_old_records_give_way(tmp_path: Path) -> None:
    """The memory is bounded; what the last build used stays."""
    path = tmp_path / "memory"
    files = [tmp_path / str(n) for n in range(5)]
    for file in files:
        file.write_text("x")
    memory = Hashes(str(path))
    for file in files[:3]:
        memory.put(file.stat(), b"d" * 32, settle(file))
    memory.save()
    memory = Hashes(str(path))
    assert memory.get(files[0].stat())
    memory.put(files[3].stat(), b"d" * 32, settle(files[3]))
    most, hashes.MOST = hashes.MOST, 3
    try:
        memory.save()
    finally:
        hashes.MOST = most
    last = Hashes(str(path))
    assert [last.get(file.stat()) is not None for file in files] == [True, False, True, True, False]


def test_an_unwritable_memory_is_no_error(tmp_path: Path) -> None:
    """The build goes on without."""
    file = tmp_path / "a"
    file.write_text("x")
    memory = Hashes(str(file / "memory"))
    memory.put(file.stat(), b"d" * 32, settle(file))
    memory.save()
    assert memory.get(file.stat()) == b"d" * 32
    assert os.listdir(tmp_path) == ["a"]


def test_each_context_has_a_memory(tmp_path: Path) -> None:
    """By its real path; what nobody built for a month goes when another one is saved."""
    one, two = tmp_path / "one", tmp_path / "two"
    for context in (one, two):
        context.mkdir()
        (context / "f").write_text("x")
    (tmp_path / "link").symlink_to("one")
    place = tmp_path / "memory"
    for context in (one, two):
        memory = Hashes.of(str(place), str(context))
        memory.put((context / "f").stat(), b"d" * 32, settle(context / "f"))
        memory.save()
    assert len(os.listdir(place)) == 2
    assert place.stat().st_mode & 0o777 == 0o700
    assert Hashes.of(str(place), str(tmp_path / "link")).get((one / "f").stat()) == b"d" * 32
    assert Hashes.of("", str(one)).get((one / "f").stat()) is None
    old = Path(Hashes.of(str(place), str(two)).path)
    os.utime(old, (1, 1))
    memory = Hashes.of(str(place), str(one))
    memory.put((two / "f").stat(), b"d" * 32, settle(two / "f"))
    memory.save()
    assert os.listdir(place) == [os.path.basename(memory.path)]


def test_two_builds_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each saves what it knows and what the other has saved before it."""
    files = [tmp_path / "a", tmp_path / "b"]
    memories = [Hashes(str(tmp_path / "memory")) for _ in files]
    for file, memory in zip(files, memories, strict=True):
        file.write_text("x")
        memory.put(file.stat(), b"d" * 32, settle(file))
    for memory in memories:
        memory.save()
    assert all(Hashes(str(tmp_path / "memory")).get(file.stat()) for file in files)
