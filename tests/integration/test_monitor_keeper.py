# SPDX-License-Identifier: Apache-2.0
"""pyrun-keeper itself: what it keeps, whom it serves, and when it ends."""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from monitor_stage import gone, until
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.monitor import keeper, sockets
from pyrun.runtime.monitor.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Iterator


def failing(error: BaseException) -> None:
    raise AssertionError("a callback failed") from error


@pytest.fixture
def root() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pyrun-keeper-") as directory:
        yield directory
        last = connect(directory)  # a test that failed may have left names, and with them the keeper
        try:
            for kept in last.everything():
                sockets.close_all(kept.fds)
                last.drop(kept.name)
        except ConnectionError:
            pass  # it had nothing, and was just ending
        last.close()


def connect(root: str) -> keeper.Keeper:
    return keeper.Keeper(Loop(failing), root, lambda: None, lambda text: None)


def pid_of(one: keeper.Keeper) -> int:
    """The process at the other end: our own child, started by posix_spawn."""
    import socket
    import struct

    credentials = one._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    assert struct.unpack("iii", credentials)[0] == os.getpid(), "whoever called listen(2) is the peer"

    def keepers() -> list[int]:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            pids = [int(pid) for pid in file.read().split()]
        return [pid for pid in pids if not gone(pid) and open(f"/proc/{pid}/comm").read() == "pyrun-keeper\n"]

    pid: int = until(keepers)[0]  # its name changes a moment after posix_spawn() has returned
    return pid


def test_what_is_put_comes_back_to_a_later_monitor(root: str) -> None:
    """Names, bytes and open files; a second put replaces, a drop closes."""
    first = connect(root)
    pid = pid_of(first)
    reader, writer = os.pipe()
    first.put("a", b"old", [reader, reader, writer])
    first.put("a", b"new \0\xff", [reader])
    first.put("nothing", b"", [])
    first.put("dropped", b"x", [writer])
    first.drop("dropped")
    first.drop("never there")
    os.write(writer, b"waiting")
    first.close()
    os.close(reader)
    os.close(writer)
    second = connect(root)
    found = {one.name: one for one in second.everything()}
    assert {name: one.data for name, one in found.items()} == {"a": b"new \0\xff", "nothing": b""}
    (copy,) = found["a"].fds
    assert os.read(copy, 100) == b"waiting"
    assert os.read(copy, 100) == b"", "nobody holds the write end any more"
    second.drop("a")
    second.drop("nothing")
    second.close()
    until(lambda: gone(pid))
    os.close(copy)


def test_it_stays_for_a_name_and_not_for_a_dot_name(root: str) -> None:
    """What the monitor keeps for itself is no reason to stay."""
    one = connect(root)
    pid = pid_of(one)
    one.put("c", b"", [0])
    one.put(".ledger", b"", [0])
    one.close()
    time.sleep(0.2)
    assert not gone(pid)
    one = connect(root)
    assert len(one.everything()) == 2
    one.drop("c")
    one.close()
    until(lambda: gone(pid))


def test_limits(root: str) -> None:
    """253 descriptors and nearly 32 KiB are kept whole; more is refused at once."""
    one = connect(root)
    data = b"x" * (keeper.MESSAGE - 10)
    one.put("much", data, [0] * keeper.FDS)
    with pytest.raises(PyrunError):
        one.put("much", data, [0] * (keeper.FDS + 1))
    with pytest.raises(PyrunError):
        one.put("much", data + b"x" * 10, [0])
    (found,) = one.everything()
    assert (found.data, len(found.fds)) == (data, keeper.FDS)
    sockets.close_all(found.fds)
    one.drop("much")
    one.close()


@pytest.mark.parametrize("message", [b"X", b"P", b"P\xff", b"P\x05abc", b"D", b"D\x09a", b"\0" * 100, b"P" * 40_000])
def test_nonsense_ends_the_connection_only(root: str, message: bytes) -> None:
    """Unknown commands, cut-off names, oversized messages, with and without descriptors: nothing else is lost."""
    one = connect(root)
    pid = pid_of(one)
    one.put("c", b"", [0])
    assert [name.name for name in one.everything()] == ["c"]
    before = os.listdir(f"/proc/{pid}/fd")
    for fds in ([], [0, 0, 0]):
        rude = sockets.connect(one.path, sockets.SEQPACKET)
        sockets.send(rude, message, fds)
        rude.settimeout(10)
        assert rude.recv(10) in (b"", b"-")
        rude.close()
    assert [name.name for name in one.everything()] == ["c"]
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= len(before))
    one.drop("c")
    one.close()
    until(lambda: gone(pid))


def test_another_user_gets_nothing(root: str) -> None:
    """Even with the socket open to all."""
    one = connect(root)
    one.put("c", b"secret", [0])
    os.chmod(root, 0o755)
    os.chmod(one.path, 0o777)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            import socket

            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect(one.path)
            sock.send(b"G")
            code = 0 if sock.recv(100) == b"" else 2
        except ConnectionError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    one.drop("c")
    one.close()


def test_its_memory_is_small_and_private(root: str) -> None:
    """Under a megabyte; and no other process of the user may look into it."""
    one = connect(root)
    pid = pid_of(one)
    for number in range(100):
        one.put(f"{number:064}", b"{}" * 200, [0] * 5)
    assert len(one.everything()) == 100
    with open(f"/proc/{pid}/smaps_rollup") as file:
        pss_kb = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    assert pss_kb < 1024
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0
    for number in range(100):
        one.drop(f"{number:064}")
    one.close()
    until(lambda: gone(pid))
