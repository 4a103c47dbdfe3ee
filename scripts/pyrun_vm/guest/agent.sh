#!/run/vm/busybox sh
# SPDX-License-Identifier: Apache-2.0
# Runs one command for the host: PID 1 in the tiny flavour, a service under systemd. One line at a time on the ctl port:
#
#   guest  SNAPREADY                 the host takes the snapshot here; a resumed guest goes on from here
#   host   HELLO                     guest  RESUMED
#   host   <epoch seconds> <seed>    guest  READY <uptime>
#   host   <settings, base64>        guest  RUNNING
#   host   SIZE <rows> <columns>     any number of times, for a terminal
#   guest  EXIT <status>             or FAIL <text> at any time: the VM is at fault
#
# End of file on the port means that the host's side is gone, so the VM goes too.
# shellcheck shell=dash
# The host's settings are sourced from a file that is written here:
# shellcheck disable=SC1091,SC2154,SC2086
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
export PYRUN_MACHINE=vm PYTEST_TIMEOUT=1200 # for tests/machine.py and pytest: emulation is about 20 times slower
here=/run/vm
exec 3<>$here/ctl

fail() {
	echo "FAIL $*" >&3
	sleep 600
	exit 125
}
off() {
	echo o >/proc/sysrq-trigger
	sleep 600
}
tell() { read -r "$@" <&3 || off; } # the host's next line

if [ $$ = 1 ]; then
	# Processes live in /init, so that the root of the hierarchy has none and its controllers can be delegated.
	mkdir /sys/fs/cgroup/init
	echo 1 >/sys/fs/cgroup/init/cgroup.procs
	echo "+cpu +cpuset +io +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
	echo vm >/proc/sys/kernel/hostname
fi
ip link set lo up

# The page cache is part of the snapshot: what is read here costs nothing later.
modprobe -a overlay veth bridge nf_tables nft_masq nft_nat nft_chain_nat nft_fib_inet nft_ct nft_reject_inet 2>/dev/null
cat /bin/bash /usr/sbin/nft /usr/lib/*/libc.so.6 /usr/lib/*/libseccomp.so.2 /usr/lib/*/libnftables.so.1 >/dev/null
python=/usr/bin/python3
if [ -b /dev/vdc ]; then
	mount -t ext4 -o ro,noatime /dev/vdc /venv || fail "the disk of the virtual environment cannot be mounted"
	python=/venv/bin/python
fi
$python -c 'import argparse, ctypes, json, socket, subprocess, tempfile'
for module in pyroute2 pytest cffi prctl zstandard; do $python -c "import $module" 2>/dev/null; done
sync

echo SNAPREADY >&3
tell hello
echo RESUMED >&3
tell now seed
/bin/date -s "@$now" >/dev/null
echo "$seed" >/dev/urandom
mount -o remount,rw / || fail "the root disk cannot be made writable"
echo "READY $(cut -d' ' -f1 /proc/uptime)" >&3

# Settings: checkout venv out tty term directory command, as assignments of the shell.
tell settings
echo "$settings" | base64 -d >$here/settings
. $here/settings
printf '%s\n' "$command" >$here/command

blockdev --flushbufs /dev/vdb # its first page was read before the snapshot, when the disk was another
mkdir -p "$checkout"
mount -t ext4 -o noatime,nobarrier /dev/vdb "$checkout" || fail "the checkout's disk cannot be mounted"
rmdir "$checkout/lost+found"
if [ -n "$venv" ]; then
	mkdir -p "$venv"
	mount --bind /venv "$venv" || fail "the virtual environment cannot be mounted on $venv"
	export PATH="$venv/bin:$PATH"
fi
share="trans=virtio,version=9p2000.L,msize=512000"
mount -t 9p -o "ro,$share,cache=loose" host /host || fail "the host's files cannot be mounted"
# Base images that the host has made need not be made here, where it takes twenty times as long.
mkdir -p /var/cache/pyrun/base-image
ln -s /host/var/cache/pyrun/base-image/*.tar /var/cache/pyrun/base-image/ 2>/dev/null
if [ -n "$out" ]; then
	mount -t 9p -o "$share" out /out || fail "/out cannot be mounted"
fi
cd "$directory" || fail "there is no directory $directory"

[ "$tty" != yes ] || exec 4<>/dev/hvc0 # a terminal that nobody holds open forgets its size

echo RUNNING >&3
(while read -r verb rows columns <&3; do
	[ "$verb" = SIZE ] && stty -F /dev/hvc0 rows "$rows" cols "$columns"
done; off) &
sizes=$!
# The shell lets what it puts in the background ignore SIGINT, and systemd SIGPIPE; the command gets every default.
# By its path: busybox would take its own env, which cannot do it.
run="/usr/bin/env --default-signal /bin/bash ${command:+$here/command}"
if [ "$tty" = yes ]; then
	stty -F /dev/hvc0 sane
	[ -n "$command" ] || printf '%s\r\n' "A disposable VM: what you change here is gone when you leave (exit, or ^D)." >&4
	TERM="$term" setsid -c $run <&4 >&4 2>&4 3>&- 4>&- &
	wait $!
	status=$?
else
	mkfifo $here/stdin $here/stdout $here/stderr
	cat $here/stdout >$here/out 3>&- &
	copy_out=$!
	cat $here/stderr >$here/err 3>&- &
	copy_err=$!
	cat $here/in >$here/stdin 3>&- &
	setsid $run <$here/stdin >$here/stdout 2>$here/stderr 3>&- &
	wait $!
	status=$?
	# What is left in the pipes is passed on; a daemon left behind may hold them open, so a second at most.
	tries=0
	while { kill -0 $copy_out || kill -0 $copy_err; } 2>/dev/null && [ $tries -lt 50 ]; do
		usleep 20000
		tries=$((tries + 1))
	done
fi
kill $sizes
echo "EXIT $status" >&3
sleep 600
