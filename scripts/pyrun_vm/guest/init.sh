#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# PID 1 of the initramfs: loads what the root disk and the ports need, mounts the root and hands over.
# Kernel command line: vmflavour=tiny (the agent is PID 1) or vmflavour=systemd (the agent is a service).
# shellcheck shell=dash
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

port() { # the device of the virtio port that the host named $1
	for port in /sys/class/virtio-ports/*; do
		[ "$(cat "$port/name" 2>/dev/null)" = "$1" ] && echo "/dev/${port##*/}"
	done
}

flavour=tiny
read -r cmdline </proc/cmdline
for word in $cmdline; do
	case $word in vmflavour=*) flavour=${word#*=} ;; esac
done
while read -r module; do
	insmod "/modules/$module" || echo "insmod $module failed" >/dev/console
done </modules/order
tries=0
while { [ -z "$(port ctl)" ] || [ ! -b /dev/vda ]; } && [ "$tries" -lt 500 ]; do
	usleep 20000
	tries=$((tries + 1))
done

# The root stays read-only until the snapshot is resumed: what is written before would be missing on the disk after.
mkdir /new
if ! mount -t ext4 -o ro,noatime,nobarrier /dev/vda /new; then
	echo "FAIL the root disk cannot be mounted" >"$(port ctl)"
	sleep 600
fi
mount --move /dev /new/dev
mount --move /proc /new/proc
mount --move /sys /new/sys
mount -t tmpfs -o mode=755 run /new/run
mkdir /new/run/vm
cp /bin/busybox /agent.sh /new/run/vm/
for name in ctl in out err; do
	ln -s "$(for port in /new/sys/class/virtio-ports/*; do
		[ "$(cat "$port/name")" = $name ] && echo "/dev/${port##*/}"
	done)" "/new/run/vm/$name"
done

if [ "$flavour" = systemd ]; then
	units=/new/run/systemd/system
	mkdir -p $units
	while read -r unit; do ln -s /dev/null "$units/$unit"; done </masked-units
	printf '%s\n' '[Unit]' 'DefaultDependencies=no' 'After=dbus.socket basic.target' \
		'[Service]' 'Delegate=yes' 'ExecStart=/run/vm/busybox sh /run/vm/agent.sh' >$units/vm-agent.service
	printf '%s\n' '[Unit]' 'Requires=basic.target' 'Wants=vm-agent.service dbus.socket dbus.service' \
		'AllowIsolate=yes' >$units/vm.target
	exec switch_root /new /lib/systemd/systemd --unit=vm.target systemd.show_status=0
fi
mkdir -p /new/dev/pts /new/dev/shm /new/dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /new/dev/pts
mount -t tmpfs shm /new/dev/shm
mount -t mqueue mqueue /new/dev/mqueue
ln -s /proc/self/fd /new/dev/fd
ln -s /proc/self/fd/0 /new/dev/stdin
ln -s /proc/self/fd/1 /new/dev/stdout
ln -s /proc/self/fd/2 /new/dev/stderr
mount -t cgroup2 -o nsdelegate cgroup2 /new/sys/fs/cgroup
exec switch_root /new /run/vm/busybox sh /run/vm/agent.sh
