# SPDX-License-Identifier: Apache-2.0
"""Containers on disk: names, lookup, state, damage."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pyrun.netns.ports import PortMapping
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.options import RestartPolicy, RunOptions
from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.runtime.paths import Paths


@pytest.fixture
def store(tmp_path: Path) -> c.ContainerStore:
    return c.ContainerStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))


def container(name: str = "", container_id: str = "", **fields: object) -> c.Container:
    plain = c.Container(
        id=container_id or c.new_id(),
        name=name,
        created="2026-01-31T13:45:00.000000000Z",
        image_id="sha256:" + "0" * 64,
        image_ref="debian",
        path="/bin/sh",
        args=("-c", "exit"),
        options=RunOptions("debian", restart=RestartPolicy("always")),
        mounts=(c.MountPoint("volume", "/v", "/data", name="v", anonymous=True, words=("rbind",)),),
        labels=(("a", "b"),),
    )
    return plain.replace(**fields)


def test_create_and_load(store: c.ContainerStore) -> None:
    """Both files come back equal; the directory is its owner's only."""
    made = store.create(container("web"), c.State(status=c.CREATED, ports=(PortMapping("tcp", "::", 80, 8080),)))
    assert store.load(made.id) == made
    assert store.load_state(made.id).ports == (PortMapping("tcp", "::", 80, 8080),)
    assert os.stat(store.paths.container(made.id)).st_mode & 0o777 == 0o700
    assert os.readlink(f"{store.paths.data}/names/web") == made.id


def test_random_name(store: c.ContainerStore) -> None:
    """Without a name the store chooses one, and the container returned has it."""
    made = store.create(container())
    assert "_" in made.name
    assert store.lookup(made.name) == made.id
    assert store.load(made.id).name == made.name


def test_a_name_belongs_to_one_container(store: c.ContainerStore) -> None:
    """The second container of a name is refused, says who has it, and leaves nothing behind."""
    first = store.create(container("web"))
    second = container("web")
    with pytest.raises(Conflict, match=f"name 'web': container {first.short_id} has it already"):
        store.create(second)
    assert store.ids() == [first.id]
    assert store.lookup("web") == first.id


@pytest.mark.parametrize("name", ["x", "../x", "a b", ".lock"])
def test_bad_names_touch_nothing(store: c.ContainerStore, name: str) -> None:
    """A name that is no name is refused before anything is written."""
    with pytest.raises(UsageError):
        store.create(container(name))
    assert not os.path.exists(store.paths.data)


def test_lookup(store: c.ContainerStore) -> None:
    """A whole id, a name, or the beginning of an id that only one container has; a name wins over a beginning."""
    one = store.create(container("web", "ab" + "1" * 62))
    two = store.create(container("db", "ab" + "2" * 62))
    assert store.lookup(one.id) == one.id
    assert store.lookup("web") == one.id
    assert store.lookup("ab1") == one.id
    with pytest.raises(Conflict, match="container 'ab': 2 ids begin so"):
        store.lookup("ab")
    three = store.create(container("ab2"))
    assert store.lookup("ab2") == three.id != two.id
    for wrong in ("", "nosuch", "ab3", "../web", "web/", "AB1", "*", "a" * 65):
        with pytest.raises(NotFound, match="no such container"):
            store.lookup(wrong)


def test_rename(store: c.ContainerStore) -> None:
    """The old name is free, the new one taken; a taken or equal one is refused."""
    web = store.create(container("web"))
    store.create(container("db"))
    assert store.rename(web.id, "site").name == "site"
    assert store.lookup("site") == web.id
    with pytest.raises(NotFound):
        store.lookup("web")
    with pytest.raises(Conflict):
        store.rename(web.id, "db")
    with pytest.raises(Conflict, match="that is its name already"):
        store.rename(web.id, "site")
    store.create(container("web"))


def test_remove_frees_the_name(store: c.ContainerStore) -> None:
    """Nothing is left but the lock of the names."""
    made = store.create(container("web"))
    store.remove(made.id)
    assert os.listdir(f"{store.paths.data}/containers") == []
    assert os.listdir(f"{store.paths.data}/names") == [".lock"]
    store.create(container("web"))


def test_a_name_left_by_a_crash_is_free(store: c.ContainerStore) -> None:
    """A link to a container that is no more is nobody's: not found, and taken over by the next create or rename."""
    os.makedirs(f"{store.paths.data}/names")
    os.symlink("0" * 64, f"{store.paths.data}/names/web")
    with pytest.raises(NotFound):
        store.lookup("web")
    made = store.create(container("web"))
    assert store.lookup("web") == made.id


@pytest.mark.parametrize("file", ["container.json", "state.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"id": 5}', '{"colour": "red"}', '{"status": "happy"}', "\xff", None]
)
def test_damage_stays_where_it_is(store: c.ContainerStore, file: str, content: str | None) -> None:
    """A damaged or missing file is one clear line for its container, and no other one is affected."""
    good = store.create(container("good"))
    bad = store.create(container("bad"))
    path = Path(store.paths.container(bad.id), file)
    if content is None:
        path.unlink()
    else:
        path.write_text(content, encoding="latin-1")
    found, problems = store.all()
    assert [one.id for one, _ in found] == [good.id]
    assert len(problems) == 1
    assert str(problems[0]).startswith(f"container {bad.short_id}: {file} is ")
    assert problems[0].hint == f"`pyrun rm -f {bad.short_id}` removes it"
    assert store.lookup("bad") == bad.id
    store.remove(bad.id)
    assert store.ids() == [good.id]


def test_all_is_sorted_newest_first(store: c.ContainerStore) -> None:
    """By creation time."""
    old = store.create(container("old", created="2026-01-01T00:00:00.000000000Z"))
    new = store.create(container("new", created="2026-01-02T00:00:00.000000000Z"))
    assert [one.id for one, _ in store.all()[0]] == [new.id, old.id]


def test_no_containers(store: c.ContainerStore) -> None:
    """A data root that does not exist yet is empty, and listing does not create it."""
    assert store.all() == ([], [])
    assert not os.path.exists(store.paths.data)


def test_update_state(store: c.ContainerStore) -> None:
    """Changes are merged into what is there, under the lock."""
    made = store.create(container("web"))
    store.update_state(made.id, status=c.RUNNING, pid=7)
    state = store.update_state(made.id, exit_code=None)
    assert (state.status, state.pid, state.exit_code) == (c.RUNNING, 7, None)
    assert store.load_state(made.id) == state
    written = json.loads(Path(store.paths.container(made.id), "state.json").read_text())
    assert set(written) == set(c.State._fields)


def test_lock_excludes(store: c.ContainerStore) -> None:
    """While one holds the lock, another that does not want to wait is told so."""
    made = store.create(container("web"))
    with store.lock(made.id), pytest.raises(BlockingIOError), store.lock(made.id, blocking=False):
        pass


def test_process_exists_tells_this_process_from_another() -> None:
    """pid, start time and boot id together are one process; each of them alone may be somebody else's."""
    me = c.State(pid=os.getpid(), pid_start_time=c.pid_start_time(os.getpid()), boot_id=c.boot_id())
    assert c.process_exists(me)
    assert not c.process_exists(me.replace(pid_start_time=me.pid_start_time - 1))
    assert not c.process_exists(me.replace(boot_id="another"))
    assert not c.process_exists(me.replace(pid=0))
    assert c.pid_start_time(2**22 + 1) == 0


def test_settle(store: c.ContainerStore) -> None:
    """A running container without process is shown as exited with an unknown code; others as they are."""
    made = store.create(container("web"))
    alive = c.State(
        status=c.RUNNING, pid=os.getpid(), pid_start_time=c.pid_start_time(os.getpid()), boot_id=c.boot_id()
    )
    assert store.settle(made.id, alive) is alive
    gone = store.settle(made.id, alive.replace(boot_id="an earlier one"))
    assert (gone.status, gone.exit_code, gone.pid) == (c.EXITED, None, 0)
    assert store.settle(made.id, c.State(status=c.EXITED, exit_code=3)).exit_code == 3


def test_new_id() -> None:
    """64 hex digits whose short form is no number: docker does the same, since it is the host name."""
    ids = [c.new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(len(one) == 64 and not one[:12].isdecimal() for one in ids)


def test_a_failed_save_keeps_the_old_state(store: c.ContainerStore) -> None:
    """A state that cannot be written (here: not encoded) leaves the one before, and no temporary file."""
    made = store.create(container("web"))
    with pytest.raises(TypeError):
        store.save_state(made.id, c.State(endpoint={"x": object()}))
    assert store.load_state(made.id) == c.State()
    assert sorted(os.listdir(store.paths.container(made.id))) == ["container.json", "state.json"]


def test_errors_are_pyrun_errors(store: c.ContainerStore) -> None:
    """An unreadable directory is no traceback."""
    made = store.create(container("web"))
    path = Path(store.paths.container(made.id), "container.json")
    path.unlink()
    path.mkdir()
    with pytest.raises(PyrunError, match=r"cannot read container\.json: Is a directory"):
        store.load(made.id)
