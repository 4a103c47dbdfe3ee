# SPDX-License-Identifier: Apache-2.0
"""cgroup v2: limits, device access, freezing, killing, statistics (docs/cgroups.md).

mount        where cgroup2 is mounted, which controllers it has, a process's own cgroup
resources    OCI linux.resources -> Records -> file names and values (pure)
group        Cgroup: create, apply, freeze, kill, remove
controllers  enabling controllers, and why one is missing
devices      device rules -> BPF program; device_flags: docker's --device forms
stats psi oom    numbers, pressure, whose memory limit was hit
recover driver explain    leftovers, drivers by name, the same steps as text

Import the module you need: on the hot path of pyrun-oci each costs a fraction of a millisecond.
"""
