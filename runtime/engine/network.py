# SPDX-License-Identifier: Apache-2.0
"""A container's network from the engine's side: which one, its ports, its files below /etc, giving it all back."""

from __future__ import annotations

import os

from pyrun.runtime import events
from pyrun.runtime.engine import containers as c
from pyrun.runtime.errors import NotFound, PyrunError
from pyrun.runtime.files import write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.netns.attach import Endpoint
    from pyrun.netns.networks import Network
    from pyrun.netns.ports import PortMapping, PortSpec
    from pyrun.netns.rtnl import Rtnl
    from pyrun.runtime.engine.options import RunOptions
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths
    from pyrun.runtime.undo import Undo

OTHERS = ("none", "host")


def is_bridge(options: RunOptions) -> bool:
    """Whether the container gets an interface of its own on a bridge."""
    return options.network not in OTHERS and ":" not in options.network


def connection(paths: Paths, container: c.Container, undo: Undo) -> Connection | None:
    """Prepares the container's network: bridge and rules are there, its ports are reserved. None without one.

    Raises Conflict for a taken port, before anything is started; NotFound for an unknown network.
    """
    if not is_bridge(container.options):
        return None
    return Connection(paths, container, undo)


class Connection:
    """One container's place on a bridge network, while it starts."""

    def __init__(self, paths: Paths, container: c.Container, undo: Undo) -> None:
        from pyrun.netns import bridge, firewall, hostports
        from pyrun.netns.rtnl import Rtnl

        self.paths = paths
        self.container = container
        self.endpoint: Endpoint | None = None
        self._undo = undo
        self._host: Rtnl = Rtnl.host()
        self.network: Network = find(paths, container.options.network, self._host)
        self._reserved = hostports.reserve(
            paths, published_ports(container), name_of=lambda holder: name_of(paths, holder)
        )
        undo.on_failure(self._reserved.close)
        self.network = bridge.ensure(paths, self._host, self.network)
        for note in firewall.ensure(paths, self.network):
            events.warn(note)

    def attach(self, netlink_fd: int) -> None:
        """Connects the container's network namespace. Raises PyrunError."""
        from pyrun.netns import attach

        options = self.container.options
        self.endpoint = attach.attach(
            self.paths,
            self.network,
            netlink_fd,
            self.container.id,
            ip=options.ip,
            mac=options.mac_address,
            host=self._host,
        )
        self._undo.on_failure(attach.detach, self.paths, self.network.name, self.container.id)

    def publish(self) -> None:
        """Makes the published ports lead to the container. Raises Conflict, PyrunError."""
        from pyrun.netns import firewall

        if self._reserved.mappings and self.endpoint is not None:
            firewall.publish(self.paths, self.container.id, self._reserved.mappings, self.endpoint.ip)
            self._undo.on_failure(firewall.unpublish, self.paths, self.container.id)

    def hold(self, link: WorkerLink) -> None:
        """The monitor keeps the sockets that hold the ports, and relays those that nftables cannot lead ([::1])."""
        if self._reserved.fds and self.endpoint is not None:
            link.hold_sockets(self.container.id, self._reserved.fds, self._reserved.targets(self.endpoint.ip))
            self._reserved.close()

    @property
    def ports(self) -> tuple[PortMapping, ...]:
        """What the state records."""
        return self._reserved.mappings


def find(paths: Paths, name: str, host: Rtnl) -> Network:
    """The network called `name`; the default one is made when it is first wanted. Raises NotFound."""
    from pyrun.netns import networks

    return networks.ensure_default(paths, host) if name in ("bridge", "default") else networks.load(paths, name)


def published_ports(container: c.Container) -> tuple[PortSpec, ...]:
    """-p, and with -P every exposed port that -p does not name."""
    options = container.options
    if not is_bridge(options):
        return ()
    if not options.publish_all:
        return options.publish
    from pyrun.netns import ports

    return (*options.publish, *ports.publish_all(container.exposed_ports, options.publish))


def name_of(paths: Paths, container_id: str) -> str:
    """The name of a container, for a message; the short id when it is gone."""
    try:
        return c.ContainerStore(paths).load(container_id).name
    except (NotFound, PyrunError):
        return container_id[: c.SHORT_ID]


SWEEP_AFTER_S = 0.25


def release(paths: Paths, container: c.Container, link: WorkerLink | None = None) -> None:
    """Gives back ports, address and interface. Fine when there are none. Raises PyrunError, OSError.

    The ports at once: somebody may want them. Removing an interface takes the kernel 20 ms (RCU grace periods), and
    that of a container that has ended goes by itself: with a monitor at hand (`link`) address and interface are left
    to sweep(), a moment later, once for all containers that ended meanwhile.
    """
    if not is_bridge(container.options):
        return
    from pyrun.netns import attach, firewall

    try:
        firewall.unpublish(paths, container.id)
    finally:
        if link is not None:
            ask_for_sweep(link)
        else:
            name = "bridge" if container.options.network == "default" else container.options.network
            attach.detach(paths, name, container.id)


def ask_for_sweep(link: WorkerLink) -> None:
    """Has the monitor call sweep() in a moment."""
    link.request("timer", key="sweep", after_s=SWEEP_AFTER_S, run="sweep", args={})


def sweep(paths: Paths, link: WorkerLink) -> None:
    """Gives back the addresses and interfaces of containers that have ended or are gone. Raises PyrunError, OSError.

    A container that is being started or cleaned up holds its lock: those are looked at again in a moment.
    """
    from pyrun.netns import attach, leases
    from pyrun.runtime.engine.remove import remove_run_directory

    store = c.ContainerStore(paths)
    at_work = False
    for name in leases.networks_with_leases(paths):
        for container_id in set(leases.held(paths, name).values()):
            if not os.path.isdir(paths.container(container_id)):
                attach.detach(paths, name, container_id)
                continue
            try:
                with store.lock(container_id, blocking=False):
                    state = store.load_state(container_id)
                    if not (c.process_exists(state) or c.owner_exists(state)):
                        attach.detach(paths, name, container_id)
            except BlockingIOError:
                at_work = True
            except NotFound:  # gone just now
                attach.detach(paths, name, container_id)
                remove_run_directory(paths, container_id)  # lock() has made it again
            except PyrunError:
                continue  # a damaged record: its address is given back with it
    if at_work:
        ask_for_sweep(link)


# ---- files -----------------------------------------------------------------------------------------------------------


def write_etc_files(paths: Paths, container: c.Container, endpoint: Endpoint | None) -> None:
    """hosts, hostname and resolv.conf in the container's directory; they are bound into its /etc.

    Written in place once they are bound (the mount is of the file, not of its name), atomically before. With
    --network container:NAME they are that container's.
    """
    from pyrun.netns import files

    options = container.options
    directory = paths.container(container.id)
    if options.network.startswith("container:"):
        store = c.ContainerStore(paths)
        other = paths.container(store.lookup(options.network.partition(":")[2]))
        for name in ("hosts", "resolv.conf"):
            with open(f"{other}/{name}", "rb") as file:
                write_atomic(f"{directory}/{name}", file.read(), mode=0o644, sync=False)
        write_atomic(f"{directory}/hostname", files.hostname(container.hostname).encode(), mode=0o644, sync=False)
        return
    own = options.network != "host"
    hosts = hosts_text(container, endpoint)
    if endpoint is not None:
        write_in_place(f"{directory}/hosts", hosts)
        return
    dns = files.Dns(options.dns, options.dns_search, options.dns_options)
    resolv = files.resolv_conf(files.host_resolv_conf(own_network=own), dns, own_network=own)
    for name, text in (("hosts", hosts), ("hostname", files.hostname(container.hostname)), ("resolv.conf", resolv)):
        write_atomic(f"{directory}/{name}", text.encode(), mode=0o644, sync=False)


def hosts_text(container: c.Container, endpoint: Endpoint | None) -> str:
    """/etc/hosts; the host's own with --network host, plus --add-host."""
    from pyrun.netns import files

    options = container.options
    gateway = endpoint.gateway if endpoint is not None else "127.0.0.1" if options.network == "host" else ""
    if endpoint is None and options.network != "host":
        # before the network is there: host-gateway cannot be named yet, or, without a network, at all
        waiting = is_bridge(options)
        added = [(n, a) for n, a in options.add_hosts if not (waiting and a == files.HOST_GATEWAY)]
        return files.hosts((), files.resolve_host_gateway(added, ""))
    added = files.resolve_host_gateway(options.add_hosts, gateway)
    # the full name first: `hostname -f` takes the first one (hosts(5), "canonical_hostname")
    names = [*([f"{container.hostname}.{options.domainname}"] if options.domainname else []), container.hostname]
    if options.network == "host":
        try:
            with open("/etc/hosts", encoding="utf-8", errors="replace") as file:
                text = file.read(1 << 20)
        except OSError:
            text = files.hosts()
        return text + "".join(f"{address}\t{name}\n" for name, address in added)
    assert endpoint is not None
    return files.hosts([(endpoint.ip, names)], added)


def write_in_place(path: str, text: str) -> None:
    """Rewrites a file that is bound somewhere: a rename would leave the old one mounted."""
    with open(path, "r+", encoding="utf-8") as file:
        file.truncate(0)
        file.write(text)
