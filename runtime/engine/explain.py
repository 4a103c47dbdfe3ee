# SPDX-License-Identifier: Apache-2.0
"""explain(): what `run` would do, step by step, on the host and in the container. Runs nothing, needs no root."""

from __future__ import annotations

from pyrun.cgroups import explain as cgroup_explain
from pyrun.cgroups import mount as cgroup_mount
from pyrun.cgroups.resources import NOTHING
from pyrun.runtime.engine import network
from pyrun.runtime.engine.create import describe
from pyrun.runtime.engine.start import Prepared, prepare
from pyrun.runtime.oci import steps as s
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrun.runtime.engine.options import RunOptions
    from pyrun.runtime.paths import Paths


class ExplainedStep(Record):
    """One step: "host" or "container", its area, what it does, and why it stands there."""

    where: str
    area: str
    what: str
    why: str


def explain(paths: Paths, options: RunOptions) -> list[ExplainedStep]:
    """The steps of `run` with these options, in order. The image must be there; nothing is changed.

    What is decided only at the start, such as the address, is named so.
    """
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(paths)
    image = images.resolve(options.image)
    container = describe(paths, options, image)
    container = container.replace(name=container.name or "NAME")
    layers = tuple(f"{paths.data}/layers/{chain.partition(':')[2]}/fs" for chain in image.chain_ids)
    prepared = prepare(paths, container, layers, write=False)
    return [*host_before(prepared), *container_side(prepared), *host_after(prepared)]


def host_before(prepared: Prepared) -> Iterator[ExplainedStep]:
    """Up to clone3."""
    container = prepared.container
    resources = prepared.spec.linux.resources or NOTHING
    mount = cgroup_mount.find().path
    for line in cgroup_explain.describe(container.cgroup_path, resources, mount):
        yield ExplainedStep("host", "cgroup", line, "limits are in force before there is a process")
    if not container.options.tty:
        for name in ("stdout", "stderr", *(["stdin"] if container.options.interactive else [])):
            yield ExplainedStep(
                "host", "streams", f"mkfifo {name}", "the program holds it open itself: no SIGPIPE, ever"
            )
    flags = s.namespace_words(prepared.plan.clone_flags)
    yield ExplainedStep(
        "host", "process", f"clone3 {flags} into cgroup {container.cgroup_path}; exec pyrun-init",
        "born inside: there is no moment at which it is not confined",
    )  # fmt: skip


def container_side(prepared: Prepared) -> Iterator[ExplainedStep]:
    """pyrun-init's plan, with what the host side does meanwhile."""
    for step in prepared.plan.steps:
        yield ExplainedStep("container", step.op.lower().replace("_", "-"), step.describe(), step.why)
        if step.op == "NETLINK":
            yield from network_steps(prepared)


def network_steps(prepared: Prepared) -> Iterator[ExplainedStep]:
    """The host's side of a bridge network."""
    container = prepared.container
    why = "through the socket that was handed out: nothing of the host enters the namespace"
    yield ExplainedStep("host", "network", "lease the next free address of network bridge", "addresses are unique")
    pair = "ip link add pv… type veth peer name eth0 netns (container); ip link set pv… master pyrun0 up"
    yield ExplainedStep("host", "network", pair, "the pair dies with the container's namespace")
    yield ExplainedStep("host", "network", "ip address add … dev eth0; ip route add default via …", why)
    for spec in network.published_ports(container):
        host = f"{spec.host_ip or '*'}:{spec.host_first or 'a free port'}"
        element = f"{spec.proto} . {host} : (address) . {spec.container_port}"
        text = f"nft add element ip pyrun ports {{ {element} }}"
        yield ExplainedStep("host", "network", text, "one map lookup, however many containers")


def host_after(prepared: Prepared) -> Iterator[ExplainedStep]:
    """Nothing is left to do once the program runs, but to watch it."""
    yield ExplainedStep(
        "host", "monitor", "read its output into the log; wait for it by pidfd", "it is the monitor's child"
    )
