#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What pyrun takes for granted of a kernel with cgroup v2: each function fact_* tries one thing and succeeds or fails, with
# a detail on its output. Runs in the VM as root; prints "PASS name: detail" or "FAIL name: detail" for each.
# shellcheck disable=SC2317,SC2329 # the functions are called by their names at the end
set -u
root=/sys/fs/cgroup
work=$(mktemp -d /var/tmp/facts.XXXXXX)

group() { # a fresh cgroup with the files and values of $2...: prints its path
	local path=$root/$1 setting
	mkdir "$path"
	shift
	for setting; do echo "${setting#*=}" >"$path/${setting%%=*}" || return; done
	echo "$path"
}
inside() { # CGROUP COMMAND...
	(
		echo $BASHPID >"$1/cgroup.procs" || exit
		shift
		exec "$@"
	)
}
field() { sed -n "s/^$2 //p" "$1"; } # FILE KEY
python() { /usr/bin/python3 -I -S -c "$@"; }

fact_controllers_of_the_root() {
	local controller
	for controller in cpu cpuset io memory pids; do
		grep -qw $controller $root/cgroup.controllers || { echo "no $controller"; return 1; }
		echo +$controller >$root/cgroup.subtree_control || return
	done
	cat $root/cgroup.subtree_control
}

fact_only_cgroup2_is_mounted() { [ "$(grep -c ' - cgroup ' /proc/self/mountinfo)" = 0 ]; }

fact_memory_max_kills_and_counts() {
	local path status
	path=$(group memory memory.max=32M) || return
	inside "$path" /usr/bin/python3 -I -S -c 'bytearray(100 << 20)'
	status=$?
	echo "status $status, oom_kill $(field "$path/memory.events" oom_kill)"
	[ $status = 137 ] && [ "$(field "$path/memory.events" oom_kill)" = 1 ]
}

fact_memory_oom_group_kills_all() {
	local path
	path=$(group oomgroup memory.max=32M memory.oom.group=1) || return
	inside "$path" sh -c "sleep 600 & exec /usr/bin/python3 -I -S -c 'bytearray(100 << 20)'"
	echo "oom_group_kill $(field "$path/memory.events" oom_group_kill), $(field "$path/cgroup.events" populated) left"
	[ "$(field "$path/memory.events" oom_group_kill)" = 1 ] && [ "$(field "$path/cgroup.events" populated)" = 0 ]
}

fact_pids_max_gives_eagain() {
	local path
	path=$(group pids pids.max=5) || return
	inside "$path" /usr/bin/python3 -I -S -c '
import os, signal
children = []
try:
    while len(children) < 9:
        child = os.fork()
        if not child:
            signal.pause()
        children.append(child)
except BlockingIOError:
    print("EAGAIN after", len(children), "children")
for child in children:
    os.kill(child, 9)
os._exit(len(children) != 4)' && [ "$(field "$path/pids.events" max)" = 1 ]
}

fact_cpu_max_throttles() {
	local path used throttled
	path=$(group cpu "cpu.max=20000 100000") || return
	inside "$path" timeout 3 sh -c 'while :; do :; done'
	used=$(field "$path/cpu.stat" usage_usec) throttled=$(field "$path/cpu.stat" nr_throttled)
	echo "3 s at 0.2 CPUs: $used us, throttled $throttled times"
	[ "$used" -lt 1200000 ] && [ "$throttled" -gt 5 ]
}

fact_cpuset_confines() {
	local path
	path=$(group cpuset cpuset.cpus=0) || return
	inside "$path" grep '^Cpus_allowed_list:[[:space:]]*0$' /proc/self/status
}

fact_io_max_slows_writes() {
	local path start took
	path=$(group io "io.max=$(cat /sys/block/vda/dev) wbps=1048576") || return
	start=$(date +%s%3N)
	inside "$path" dd if=/dev/zero of="$work/data" bs=256k count=10 oflag=direct status=none || return
	took=$(($(date +%s%3N) - start))
	echo "2.5 MiB at 1 MiB/s took $took ms"
	[ $took -gt 1400 ]
}

fact_freezer_freezes_and_kill_kills() {
	local path child status tries=0
	path=$(group freezer) || return
	inside "$path" sleep 600 &
	child=$!
	until grep -q . "$path/cgroup.procs"; do sleep 0.1; done
	echo 1 >"$path/cgroup.freeze"
	until grep -q 'frozen 1' "$path/cgroup.events"; do
		[ $((tries += 1)) -lt 50 ] || return
		sleep 0.1
	done
	echo 1 >"$path/cgroup.kill"
	wait $child
	status=$?
	echo "a frozen process killed: status $status"
	[ $status = 137 ]
}

fact_interface_files() {
	local path name missing=()
	path=$(group files) || return
	for name in memory.{current,peak,high,low,max,swap.max,events,pressure,reclaim,oom.group} cgroup.{kill,freeze} \
		cpu.{max,max.burst,weight,idle,stat,pressure} pids.{max,current,peak,events} io.{max,stat,pressure} \
		cpuset.{cpus,mems,cpus.effective}; do
		[ -e "$path/$name" ] || missing+=("$name")
	done
	echo "${missing[*]:+missing: ${missing[*]}}"
	[ ${#missing[@]} = 0 ]
}

fact_device_program_denies() {
	group device >/dev/null || return
	# A program of two instructions, r0 = 0; exit: every device is refused (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE).
	python '
import ctypes, os, struct
BPF, PROG_LOAD, PROG_ATTACH = 321, 5, 8
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 120)
    result = libc.syscall(BPF, command, buffer, 120)
    if result < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return result
code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
licence = ctypes.create_string_buffer(b"Apache-2.0")
program = bpf(PROG_LOAD, struct.pack("<IIQQ", 15, 2, ctypes.addressof(code), ctypes.addressof(licence)))
group = os.open("/sys/fs/cgroup/device", os.O_RDONLY)
bpf(PROG_ATTACH, struct.pack("<IIII", group, program, 6, 0))
with open("/sys/fs/cgroup/device/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
try:
    os.open("/dev/null", os.O_RDONLY)
except PermissionError:
    print("EPERM on /dev/null")
else:
    raise SystemExit("/dev/null could be opened")'
}

fact_overlay_of_root() {
	mkdir -p "$work"/o/{lower,upper,work,merged}
	echo one >"$work/o/lower/file"
	mount -t overlay -o "lowerdir=$work/o/lower,upperdir=$work/o/upper,workdir=$work/o/work" o "$work/o/merged" || return
	echo two >>"$work/o/merged/file"
	umount "$work/o/merged"
	[ "$(cat "$work/o/upper/file")" = $'one\ntwo' ] && [ "$(cat "$work/o/lower/file")" = one ]
}

fact_overlay_in_a_user_namespace() {
	mkdir -p "$work"/u/{lower/dir,upper,work,merged}
	chmod 755 "$work"
	chown -R 1000:1000 "$work/u"
	# shellcheck disable=SC2016
	setpriv --reuid 1000 --regid 1000 --clear-groups unshare -Urm sh -c 'cd "$1" &&
		mount -t overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work o merged &&
		rmdir merged/dir && mkdir merged/dir && getfattr -n user.overlay.opaque upper/dir' - "$work/u" 2>&1
}

network() { # the bridge br0 with the namespace "inner", the veth w0 to the namespace "world", and the rules between them
	[ -e /run/netns/inner ] && return
	{
		ip link add br0 type bridge && ip addr add 10.9.0.1/24 dev br0 && ip link set br0 up
		ip netns add inner && ip link add v0 type veth peer name eth0 netns inner && ip link set v0 master br0 up
		ip -n inner addr add 10.9.0.2/24 dev eth0 && ip -n inner link set eth0 up
		ip -n inner route add default via 10.9.0.1
		ip netns add world && ip link add w0 type veth peer name eth0 netns world
		ip addr add 192.0.2.1/24 dev w0 && ip link set w0 up
		ip -n world addr add 192.0.2.2/24 dev eth0 && ip -n world link set eth0 up
		echo 1 >/proc/sys/net/ipv4/ip_forward
	} || return
	nft -f - <<-END
		table ip facts {
			map ports { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 8080 : 10.9.0.2 . 80 } }
			chain post { type nat hook postrouting priority srcnat; ip saddr 10.9.0.0/24 oifname != "br0" masquerade; }
			chain pre { type nat hook prerouting priority dstnat; dnat to meta l4proto . th dport map @ports; }
			chain out { type nat hook output priority -100; ip daddr 192.0.2.1 dnat to meta l4proto . th dport map @ports; }
		}
	END
}
says_who() { # NAMESPACE PORT: one connection is answered with the address that it came from
	ip netns exec "$1" /usr/bin/python3 -I -S -c '
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
server.settimeout(60)
connection, address = server.accept()
connection.sendall(address[0].encode())' "$2" &
	until ip netns exec "$1" ss -Hltn "sport = :$2" | grep -q .; do sleep 0.1; done
}
ask() { # ADDRESS PORT
	python 'import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 60).recv(99).decode())' "$@"
}

fact_masquerade() {
	network || return
	says_who world 9000
	answer=$(ip netns exec inner bash -c "$(declare -f python ask); ask 192.0.2.2 9000")
	echo "seen from $answer"
	[ "$answer" = 192.0.2.1 ]
}

fact_port_map_from_outside() {
	network || return
	says_who inner 80
	answer=$(ip netns exec world bash -c "$(declare -f python ask); ask 192.0.2.1 8080")
	echo "seen from $answer"
	[ "$answer" = 192.0.2.2 ]
}

fact_port_map_from_the_host_itself() {
	network || return
	says_who inner 80
	answer=$(ask 192.0.2.1 8080)
	echo "seen from $answer"
	[ -n "$answer" ]
}

for name in $(declare -F | sed -n 's/^declare -f fact_//p'); do
	if detail=$("fact_$name" 2>&1); then verdict=PASS; else verdict=FAIL; fi
	echo "$verdict $name: $(echo "$detail" | tr '\n' ' ')"
done
