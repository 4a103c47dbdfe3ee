# SPDX-License-Identifier: Apache-2.0
"""A container in the shape of docker's inspect, so that its users' templates work."""

from __future__ import annotations

from pyrun.runtime.engine.containers import DEAD, EXITED, PAUSED, REMOVING, RESTARTING
from pyrun.runtime.engine.templates import Lazy, Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.netns.ports import PortMapping
    from pyrun.runtime.engine.containers import Container, MountPoint, State
    from pyrun.runtime.engine.options import RunOptions
    from pyrun.runtime.paths import Paths

DEFAULT_SHM_SIZE = 64 << 20


def container(paths: Paths, found: Container, state: State, *, size: bool = False) -> dict[str, Any]:
    """One container; `size` adds SizeRw and SizeRootFs."""
    directory = paths.container(found.id)
    shown: dict[str, Any] = {
        "Id": found.id,
        "Created": found.created,
        "Path": found.path,
        "Args": list(found.args),
        "State": _state(state),
        "Image": found.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": f"{found.log_path or directory + '/log'}/container.log",
        "Name": f"/{found.name}",
        "RestartCount": state.restart_count,
        "Driver": "overlay",
        "Platform": found.platform.partition("/")[0],
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": found.options.apparmor,
        "ExecIDs": None,
        "HostConfig": _host_config(found),
        "GraphDriver": {"Name": "overlay", "Data": Map(UpperDir=f"{directory}/upper", WorkDir=f"{directory}/work")},
        "Mounts": [_mount(mount) for mount in found.mounts],
        "Config": _config(found),
        "NetworkSettings": _network_settings(found, state),
        "Bundle": directory,  # from here on: not in docker's output
        "CgroupPath": found.cgroup_path,
    }
    if size:
        from pyrun.runtime.engine.listing import disk_usage

        written = Lazy(lambda: disk_usage(f"{directory}/upper"))
        shown["SizeRw"] = written
    return shown


def _state(state: State) -> dict[str, Any]:
    return {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.status == PAUSED,
        "Restarting": state.status == RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status in (DEAD, REMOVING),
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error if state.status in (EXITED, "created") else "",
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
        "Health": None,  # for {{if .State.Health}}: there are no health checks
    }


def _host_config(found: Container) -> dict[str, Any]:
    options = found.options
    return {
        "Binds": [_bind(mount) for mount in options.mounts if mount.create_source or mount.type == "volume"] or None,
        "ContainerIDFile": options.cidfile,
        "LogConfig": {"Type": options.log_driver, "Config": Map(options.log_opts)},
        "NetworkMode": options.network,
        "PortBindings": _port_bindings(options),
        "RestartPolicy": {"Name": options.restart.name, "MaximumRetryCount": options.restart.max_retries},
        "AutoRemove": options.rm,
        "VolumesFrom": list(options.volumes_from) or None,
        "ConsoleSize": [0, 0],
        "Annotations": Map(options.annotations),
        "CapAdd": list(options.cap_add) or None,
        "CapDrop": list(options.cap_drop) or None,
        "CgroupnsMode": options.cgroupns or "private",
        "Dns": list(options.dns),
        "DnsOptions": list(options.dns_options),
        "DnsSearch": list(options.dns_search),
        "ExtraHosts": [f"{name}:{address}" for name, address in options.add_hosts] or None,
        "GroupAdd": list(options.group_add) or None,
        "IpcMode": options.ipc or "private",
        "Links": None,
        "OomScoreAdj": options.oom_score_adj or 0,
        "PidMode": options.pid,
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": _security_options(options) or None,
        "Tmpfs": Map(
            {mount.target: ",".join(mount.tmpfs_options) for mount in options.mounts if mount.type == "tmpfs"}
        ),
        "UTSMode": options.uts,
        "UsernsMode": options.userns,
        "ShmSize": options.shm_size or DEFAULT_SHM_SIZE,
        "Sysctls": Map(options.sysctls),
        "Runtime": "pyrun",
        **_resources(options),
        "Mounts": [_asked_mount(mount) for mount in options.mounts if not mount.create_source] or None,
        "Init": options.init or None,
    }


def _resources(options: RunOptions) -> dict[str, Any]:
    return {
        "CpuShares": options.cpu_shares or 0,
        "Memory": options.memory or 0,
        "NanoCpus": round((options.cpus or 0) * 10**9),
        "CgroupParent": options.cgroup_parent,
        "BlkioWeight": options.blkio_weight or 0,
        "BlkioWeightDevice": [{"Path": path, "Weight": weight} for path, weight in options.blkio_weight_device],
        "BlkioDeviceReadBps": _rates(options.device_read_bps),
        "BlkioDeviceWriteBps": _rates(options.device_write_bps),
        "BlkioDeviceReadIOps": _rates(options.device_read_iops),
        "BlkioDeviceWriteIOps": _rates(options.device_write_iops),
        "CpuPeriod": options.cpu_period or 0,
        "CpuQuota": options.cpu_quota or 0,
        "CpusetCpus": options.cpuset_cpus,
        "CpusetMems": options.cpuset_mems,
        "Devices": [
            {
                "PathOnHost": device.path_on_host,
                "PathInContainer": device.path_in_container,
                "CgroupPermissions": device.permissions,
            }
            for device in options.devices
        ],
        "DeviceCgroupRules": list(options.device_cgroup_rules) or None,
        "MemoryReservation": options.memory_reservation or 0,
        "MemorySwap": options.memory_swap or 0,
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "PidsLimit": options.pids_limit,
        "Ulimits": [{"Name": one.name, "Hard": one.hard, "Soft": one.soft} for one in options.ulimits],
    }


def _rates(rates: tuple[tuple[str, int], ...]) -> list[dict[str, Any]]:
    return [{"Path": path, "Rate": rate} for path, rate in rates]


def _security_options(options: RunOptions) -> list[str]:
    found = ["no-new-privileges"] if options.no_new_privileges else []
    found += [f"seccomp={options.seccomp}"] if options.seccomp else []
    found += [f"apparmor={options.apparmor}"] if options.apparmor else []
    found += [f"label={label}" for label in options.selinux_labels]
    return [*found, "systempaths=unconfined"] if options.systempaths_unconfined else found


def _bind(mount: Any) -> str:
    words = [word for word in ("ro" if mount.readonly else "", mount.selinux, mount.propagation) if word]
    return ":".join(filter(None, (mount.source, mount.target, ",".join(words))))


def _asked_mount(mount: Any) -> dict[str, Any]:
    return {"Type": mount.type, "Source": mount.source, "Target": mount.target, "ReadOnly": mount.readonly}


def _mount(mount: MountPoint) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Type": mount.type,
        "Name": mount.name,
        "Source": mount.source,
        "Destination": mount.target,
        "Driver": mount.driver,
        "Mode": mount.mode,
        "RW": not mount.readonly,
        "Propagation": mount.propagation,
    }
    return shown if mount.type == "volume" else {key: shown[key] for key in shown if key not in ("Name", "Driver")}


def _config(found: Container) -> dict[str, Any]:
    options = found.options
    attached = options.attach or (() if options.detach else ("stdout", "stderr", *(["stdin"] * options.interactive)))
    return {
        "Hostname": found.hostname,
        "Domainname": options.domainname,
        "User": found.user,
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "ExposedPorts": Map({port: {} for port in found.exposed_ports}),
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and not options.detach,
        "Env": list(found.env),
        "Cmd": list(found.cmd) or None,
        "Image": found.image_ref,
        "Volumes": Map({target: {} for target in found.volumes}) or None,
        "WorkingDir": found.workdir,
        "Entrypoint": list(found.entrypoint) or None,
        "OnBuild": None,
        "Labels": Map(found.labels),
        "StopSignal": found.stop_signal,
        "StopTimeout": options.stop_timeout,
    }


def _port_bindings(options: RunOptions) -> Map:
    found = Map()
    for spec in options.publish:
        port = "" if not spec.host_first else str(spec.host_first)
        port += f"-{spec.host_last}" if spec.host_last != spec.host_first else ""
        binding = {"HostIp": spec.host_ip, "HostPort": port}
        found.setdefault(f"{spec.container_port}/{spec.proto}", []).append(binding)
    return found


def _network_settings(found: Container, state: State) -> dict[str, Any]:
    mode = found.options.network
    endpoint = state.endpoint or {}
    one = {
        "IPAMConfig": {"IPv4Address": found.options.ip} if found.options.ip else None,
        "Links": None,
        "Aliases": list(found.options.network_aliases) or None,
        "MacAddress": endpoint.get("mac", ""),
        "NetworkID": endpoint.get("network_id", ""),
        "EndpointID": endpoint.get("host_interface", ""),
        "Gateway": endpoint.get("gateway", ""),
        "IPAddress": endpoint.get("ip", ""),
        "IPPrefixLen": endpoint.get("prefix", 0),
        "IPv6Gateway": endpoint.get("ipv6_gateway", ""),
        "GlobalIPv6Address": endpoint.get("ipv6", ""),
        "GlobalIPv6PrefixLen": endpoint.get("ipv6_prefix", 0),
        "DNSNames": None,
    }
    repeated = ("Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen")
    networks = Map() if mode.startswith(("container:", "ns:")) else Map({mode: one})
    return {
        "SandboxKey": f"/proc/{state.pid}/ns/net" if state.pid else "",
        "Ports": _ports(found, state.ports if state.running else ()),
        **{name: one[name] for name in (*repeated, "MacAddress")},
        "Networks": networks,
    }


def _ports(found: Container, mappings: tuple[PortMapping, ...]) -> Map:
    shown = Map(dict.fromkeys(found.exposed_ports)) if mappings or found.exposed_ports else Map()
    for mapping in mappings:
        name = f"{mapping.container_port}/{mapping.proto}"
        binding = {"HostIp": mapping.host_ip, "HostPort": str(mapping.host_port)}
        shown[name] = [*(shown.get(name) or []), binding]
    return shown
