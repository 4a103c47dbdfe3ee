# SPDX-License-Identifier: Apache-2.0
"""One RUN of a build in its container: what it sees, what it leaves in the layer, how it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

import build_steps
import leftovers
from pyrun.runtime.engine.build.execute import RunRequest, execute
from pyrun.runtime.engine.build.failure import Cancelled
from pyrun.runtime.errors import NotFound, StartError, UsageError
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_steps import Steps
    from cli import Pyrun

pytestmark = requires(root=True)


@pytest.fixture
def steps(pyrun: Pyrun, base_image: str) -> Iterator[Steps]:
    """Steps on the busybox image; afterwards nothing of them is left."""
    yield build_steps.of_image(pyrun.paths, base_image)
    assert not leftovers.lasting(pyrun.paths)


# ---- what it sees ----------------------------------------------------------------------------------------------------


def test_output_and_exit_code(steps: Steps) -> None:
    """stdout and stderr come apart and whole, and the exit code is the program's."""
    ran = steps("/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.code, ran.out, ran.err) == (7, "out\n", "err\n")


def test_much_output_is_whole(steps: Steps) -> None:
    """Megabytes that are written just before the end arrive."""
    ran = steps.sh("yes 0123456789abcdef | head -c 5000000; echo; echo end")
    assert len(ran.out) == 5000000 + 5
    assert ran.out.endswith("\nend\n")


def test_death_by_signal(steps: Steps) -> None:
    """A program that a signal ended: 128 and its number."""
    ended: list[int] = []

    def kill() -> None:
        pid = build_steps.wait_until_running(steps.paths)
        os.kill(pid, signal.SIGKILL)
        ended.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    assert steps("/bin/sleep", "1000").code == 137
    killer.join()
    assert ended


def test_what_is_left_running_ends_with_the_step(steps: Steps) -> None:
    """A daemon that the step started and that holds its output does not keep the step from ending."""
    begun = time.monotonic()
    ran = steps.sh("sleep 1000 & echo done")
    assert ran.out == "done\n"
    assert time.monotonic() - begun < 10


def test_stdin_is_empty_or_given(steps: Steps) -> None:
    """/dev/null, or the request's bytes."""
    assert steps.sh("cat; echo end").out == "end\n"
    assert steps.sh("cat", stdin=b"x" * 200_000).out == "x" * 200_000


def test_environment_user_and_directory(steps: Steps) -> None:
    """The step's variables, user, groups and directory; HOME of /etc/passwd."""
    ran = steps.sh(
        "echo $A $HOME; id -u; id -g; pwd", env=(build_steps.PATH, "A=b c"), user="1000:1001", workdir="/tmp"
    )
    assert ran.out == "b c /\n1000\n1001\n/tmp\n"
    assert ran.changed == {}


def test_streams_can_be_opened_again(steps: Steps) -> None:
    """/dev/stdout and /dev/stderr, also by a user who is not root: log files of images are links to them."""
    ran = steps.sh("echo out >/dev/stdout; echo err >>/dev/stderr", user="1000")
    assert (ran.out, ran.err) == ("out\n", "err\n")


def test_a_hundred_and_twenty_layers(steps: Steps, tmp_path: Path) -> None:
    """As many as docker allows."""
    layers = [tmp_path / str(number) for number in range(120)]
    for layer in layers:
        layer.mkdir()
        (layer / f"from-{layer.name}").write_text("")
    assert steps.on(*layers).sh("ls -d /from-* | wc -l; echo x >/x").out == "120\n"


def test_privileges_are_those_of_a_build(steps: Steps) -> None:
    """docker's capabilities and filter, masked paths, read-only /proc/sys; set-user-id programs work (apt needs it)."""
    ran = steps.sh("grep -E '^(CapEff|CapBnd|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status")
    found = dict(line.split(":\t") for line in ran.out.splitlines())
    assert found == {
        "CapInh": "0" * 16, "CapEff": "00000000a80425fb", "CapBnd": "00000000a80425fb", "CapAmb": "0" * 16,
        "NoNewPrivs": "0", "Seccomp": "2",
    }  # fmt: skip
    assert steps("/bin/sh", "-c", "echo 1 >/proc/sys/kernel/printk").code != 0
    assert steps.sh("cat /proc/timer_list").out == ""


def test_network_of_the_default_bridge(steps: Steps) -> None:
    """An address, a route, name servers, and itself in /etc/hosts under docker's host name."""
    ran = steps.sh("ip -4 addr show eth0; ip route; cat /etc/hosts; hostname", network="default")
    address = ran.out.partition("inet ")[2].partition("/")[0]
    assert f"{address}\tbuildkitsandbox" in ran.out
    assert "default via" in ran.out
    assert ran.changed == {}


def test_no_network(steps: Steps) -> None:
    """--network=none has the loopback alone."""
    assert os.listdir("/sys/class/net") != ["lo"]
    assert steps.sh("ls /sys/class/net", network="none").out == "lo\n"


def test_the_steps_own_name_can_be_looked_up(steps: Steps) -> None:
    """In /etc/hosts whatever the network: sudo and Java ask for it."""
    for network in ("none", "host", "default"):
        ran = steps.sh("grep -w $(hostname) /etc/hosts", network=network, entitlements=("network.host",))
        assert ran.out.split()[1] == "buildkitsandbox"
    ran = steps.sh("hostname; grep -w builder /etc/hosts", hostname="builder")
    assert ran.out == "builder\n127.0.0.1\tbuilder\n"


def test_host_network_needs_the_entitlement(steps: Steps) -> None:
    """--network=host is refused without --allow network.host, and is the host's with it."""
    with pytest.raises(UsageError, match="not allowed") as refused:
        steps("/bin/true", network="host")
    assert "--allow network.host" in refused.value.hint
    ran = steps.sh("readlink /proc/self/ns/net", network="host", entitlements=("network.host",))
    assert ran.out.strip() == os.readlink("/proc/self/ns/net")


def test_added_hosts(steps: Steps) -> None:
    """--add-host is in /etc/hosts, with and without a network."""
    for network in ("none", "default"):
        assert "10.1.2.3\tdb" in steps.sh("cat /etc/hosts", network=network, add_hosts=(("db", "10.1.2.3"),)).out


def test_shm_size_and_ulimits(steps: Steps) -> None:
    """--shm-size and --ulimit hold."""
    from pyrun.runtime.engine.options import Ulimit

    ran = steps.sh("df -k /dev/shm | tail -1; ulimit -n", shm_size=8 << 20, ulimits=(Ulimit("nofile", 64, 64),))
    assert " 8192 " in ran.out
    assert ran.out.endswith("\n64\n")


def test_a_program_that_is_not_there(steps: Steps) -> None:
    """docker's words and exit code; nothing is left."""
    with pytest.raises(StartError) as failed:
        steps("nonesuch")
    assert failed.value.code == 127
    with pytest.raises(NotFound):
        steps("/bin/true", user="nobody-of-this-name")


# ---- the layer -------------------------------------------------------------------------------------------------------


def test_a_step_that_changes_nothing_leaves_nothing(steps: Steps) -> None:
    """No mount point, no directory, no time of one."""
    assert (
        steps.sh("cat /etc/hosts /etc/resolv.conf /etc/hostname; ls /proc /sys /dev", network="default").changed == {}
    )


def test_changes_are_in_the_layer(steps: Steps) -> None:
    """What is written, made and deleted, and nothing else."""
    ran = steps.sh("mkdir -m 750 /new; echo x >/new/file; rm /etc/group; chown 5:6 /new/file")
    assert sorted(ran.changed) == ["etc", "etc/group", "new", "new/file"]
    assert ran.content["new/file"] == b"x\n"
    assert (ran.changed["new/file"].st_uid, ran.changed["new/file"].st_gid) == (5, 6)
    assert ran.changed["etc/group"].st_rdev == 0  # a whiteout


def test_the_root_directory_is_the_images(steps: Steps, tmp_path: Path) -> None:
    """Owner and mode of "/" are those of the layers below, in the container and in the layer."""
    layer = tmp_path / "fs"
    layer.mkdir()
    layer.chmod(0o711)
    os.chown(layer, 3, 4)
    ran = steps.on(layer).sh("stat -c '%a %u %g' /; echo >/x")
    assert ran.out == "711 3 4\n"


def test_mount_points_of_an_image_without_any(steps: Steps, tmp_path: Path) -> None:
    """/etc, /proc, /sys and /dev that the image does not have are there, and are not in the layer; what a program
    writes into /etc is, with a sound directory."""
    layer = tmp_path / "fs"
    (layer / "bin").mkdir(parents=True)
    busybox = f"{steps.lowers[0]}/bin/busybox"
    with open(busybox, "rb") as source:
        (layer / "bin/sh").write_bytes(source.read())
    (layer / "bin/sh").chmod(0o755)
    bare = build_steps.Steps(steps.paths, (str(layer),))
    assert bare("/bin/sh", "-c", "echo $(cat </proc/self/comm) </etc/hosts >/dev/null").changed == {}
    ran = bare("/bin/sh", "-c", "echo own >/etc/conf")
    assert sorted(ran.changed) == ["etc", "etc/conf"]
    assert (ran.changed["etc"].st_mode & 0o7777, ran.changed["etc"].st_uid) == (0o755, 0)


def test_directories_copied_up_look_as_below(steps: Steps, tmp_path: Path) -> None:
    """/etc of the image has an owner, a mode and attributes of its own: after a program wrote into it, it still has."""
    layer = tmp_path / "fs"
    (layer / "etc").mkdir(parents=True)
    os.chown(layer / "etc", 7, 8)
    (layer / "etc").chmod(0o2775)
    os.setxattr(layer / "etc", "user.mine", b"1")
    ran = steps.on(layer).sh("stat -c '%a %u %g' /etc; echo x >/etc/new; cat /etc/passwd | head -1")
    assert ran.out.startswith("2775 7 8\nroot:")
    assert sorted(ran.changed) == ["etc", "etc/new"]
    assert (ran.changed["etc"].st_mode & 0o7777, ran.changed["etc"].st_uid, ran.changed["etc"].st_gid) == (0o2775, 7, 8)


def test_a_files_content_is_copied_up_whole(steps: Steps) -> None:
    """Appending to a file of the image keeps what it had."""
    with open(f"{steps.lowers[0]}/etc/passwd", "rb") as file:
        before = file.read()
    ran = steps.sh("echo 'a:x:5:5::/:/bin/sh' >>/etc/passwd")
    assert ran.content["etc/passwd"] == before + b"a:x:5:5::/:/bin/sh\n"


def test_links_where_mount_points_are(steps: Steps, tmp_path: Path) -> None:
    """/etc, /dev and /etc/resolv.conf as symlinks inside the image: mounts go where they lead, inside; absolute links
    do not reach the host."""
    layer = tmp_path / "fs"
    (layer / "usr/etc").mkdir(parents=True)
    (layer / "real").mkdir()
    marker = tmp_path / "marker"
    (layer / "etc").symlink_to("/usr/etc")
    (layer / "dev").symlink_to("real/dev")
    (layer / "usr/etc/resolv.conf").symlink_to(f"{marker}/resolv.conf")
    (layer / "usr/etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    ran = steps.on(layer).sh("cat /etc/hosts /usr/etc/resolv.conf >/dev/null; test -c /real/dev/null; ls -d /etc /dev")
    assert ran.changed == {}
    assert not marker.exists()
    assert not (layer / "real/dev").exists()


def test_a_file_where_a_directory_must_be(steps: Steps, tmp_path: Path) -> None:
    """/proc as a file is refused with a reason; nothing is left."""
    layer = tmp_path / "fs"
    layer.mkdir()
    (layer / "proc").write_text("")
    with pytest.raises(UsageError, match=r"mount on /proc: the image has a file there"):
        steps.on(layer)("/bin/true")


def test_a_missing_working_directory_is_made(steps: Steps) -> None:
    """As docker's: WORKDIR that a later layer removed comes back."""
    assert list(steps.sh("pwd", workdir="/gone").changed) == ["gone"]


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_cancelling_ends_a_step_at_once(steps: Steps) -> None:
    """The event ends everything of it within a moment, grandchildren too."""
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        steps("/bin/sh", "-c", "trap '' TERM INT; sleep 1000 & sleep 1000", network="default", cancel=cancel)
    assert time.monotonic() - begun < 5


def test_cancelled_before_it_began(steps: Steps) -> None:
    """Nothing is started."""
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        steps("/bin/true", cancel=cancel)


def test_an_output_that_fails_ends_the_step(steps: Steps) -> None:
    """An error of whoever takes the output (a closed pipe) is the step's, and nothing is left running."""
    from pyrun.rootfs.layers import Layers

    def broken(_name: str, _data: bytes) -> None:
        raise BrokenPipeError

    request = RunRequest(("/bin/sh", "-c", "yes"), lowers=steps.lowers, network="none", env=(build_steps.PATH,))
    with Layers(f"{steps.paths.data}/layers").scratch() as scratch, pytest.raises(BrokenPipeError):
        execute(steps.paths, request, scratch, broken, cancel=threading.Event())


def test_many_at_a_time(steps: Steps) -> None:
    """Eight steps in eight threads, on the bridge: each has its own output, address and layer."""
    ran: dict[int, build_steps.Ran] = {}

    def one(number: int) -> None:
        ran[number] = steps.sh(
            f"echo {number} >/n; ip -4 addr show eth0 | grep -o 'inet [0-9.]*'; sleep 0.3", network="default"
        )

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: ran[number].content["n"] for number in ran} == {n: f"{n}\n".encode() for n in range(8)}
    assert len({one.out for one in ran.values()}) == 8


def test_steps_are_not_shown_as_containers(pyrun: Pyrun, steps: Steps) -> None:
    """ps -a, names and ids know nothing of a running step, and rm does not find it."""
    seen: list[str] = []

    def look() -> None:
        time.sleep(0.4)
        (container_id,) = os.listdir(f"{pyrun.paths.data}/containers")
        seen.extend((pyrun.ok("ps", "-aq"), pyrun.ok("container", "prune", "-f")))
        seen.extend((pyrun("rm", "-f", container_id).err, pyrun("inspect", container_id[:12]).err))
        seen.append(" ".join(name for name in os.listdir(f"{pyrun.paths.data}/names") if name != ".lock"))

    looker = threading.Thread(target=look)
    looker.start()
    assert steps("/bin/sleep", "1.5", network="default").code == 0
    looker.join()
    assert (seen[0], seen[4]) == ("", "")
    assert "no such" in seen[2]
    assert "no such" in seen[3]


@requires(cgroup2=("memory",))
def test_out_of_memory_is_told(steps: Steps) -> None:
    """A step that reaches --memory: 137, and whose limit it was."""
    ran = steps("/bin/sh", "-c", "tail /dev/zero", memory=16 << 20)
    assert ran.code == 137
    assert "memory limit 16 MiB" in ran.oom
