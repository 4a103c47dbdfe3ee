# SPDX-License-Identifier: Apache-2.0
"""runtime/oci/mount_options.py: the mount option vocabulary of the runtime-spec."""

from __future__ import annotations

import pytest

from pyrun.runtime.errors import SpecError
from pyrun.runtime.oci import mount_options as m
from pyrun.runtime.oci.mount_options import MountOptions, parse

# config.md, Linux mount options: every row of the table
SPEC_TABLE = (
    "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec "
    "noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime "
    "relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate "
    "rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime "
    "suid symfollow sync tmpcopyup unbindable idmap ridmap"
)


def options(*words: str, fstype: str = "none") -> MountOptions:
    return parse(list(words), fstype, "o")


@pytest.mark.parametrize("word", [*SPEC_TABLE.split(), "rnodev"])
def test_every_option_of_the_spec_is_known(word: str) -> None:
    """Each word of the spec's table is understood: none ends up as data of a file system."""
    assert options(word, fstype="tmpfs").data == ""
    assert word in m.known_options()


@pytest.mark.parametrize(
    ("words", "set_flags", "clear_flags", "attr_set", "attr_clear"),
    [
        (["ro"], m.MS_RDONLY, 0, m.MOUNT_ATTR_RDONLY, 0),
        (["rw"], 0, m.MS_RDONLY, 0, m.MOUNT_ATTR_RDONLY),
        (["ro", "rw"], 0, m.MS_RDONLY, 0, m.MOUNT_ATTR_RDONLY),
        (["rw", "ro"], m.MS_RDONLY, 0, m.MOUNT_ATTR_RDONLY, 0),
        (["nosuid", "nodev", "noexec"], 0xE, 0, 0xE, 0),
        (["suid", "dev", "exec"], 0, 0xE, 0, 0xE),
        (["nosymfollow"], 0x100, 0, 0x200000, 0),
        (["noatime"], m.MS_NOATIME, 0, m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
        (["strictatime"], m.MS_STRICTATIME, 0, m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
        (["relatime"], m.MS_RELATIME, 0, 0, m.MOUNT_ATTR__ATIME),
        (["noatime", "relatime"], m.MS_NOATIME | m.MS_RELATIME, 0, 0, m.MOUNT_ATTR__ATIME),
        (["noatime", "atime"], 0, m.MS_NOATIME, 0, m.MOUNT_ATTR__ATIME),
        (["norelatime"], 0, m.MS_RELATIME, 0, 0),
        (["nodiratime"], m.MS_NODIRATIME, 0, m.MOUNT_ATTR_NODIRATIME, 0),
        (["sync", "dirsync"], m.MS_SYNCHRONOUS | m.MS_DIRSYNC, 0, 0, 0),
        (["user"], 0xE, 0, 0xE, 0),
        (["user", "exec"], 0x6, 0x8, 0x6, 0x8),
        (["defaults"], 0, 0, 0, 0),
        (["nofail", "_netdev", "x-systemd.automount", "comment=hello"], 0, 0, 0, 0),
    ],
)
def test_flags(words: list[str], set_flags: int, clear_flags: int, attr_set: int, attr_clear: int) -> None:
    """Words set and clear MS_* and MOUNT_ATTR_* bits; the last word on a subject wins."""
    found = options(*words)
    assert (found.set_flags, found.clear_flags) == (set_flags, clear_flags)
    assert (found.attr_set, found.attr_clear) == (attr_set, attr_clear)
    assert (found.data, found.rec_attr_set, found.rec_attr_clear) == ("", 0, 0)


@pytest.mark.parametrize(
    ("words", "attr_set", "attr_clear"),
    [
        (["rro"], m.MOUNT_ATTR_RDONLY, 0),
        (["rro", "rrw"], 0, m.MOUNT_ATTR_RDONLY),
        (["rnosuid", "rnodev", "rnoexec"], 0xE, 0),
        (["ratime"], 0, m.MOUNT_ATTR__ATIME),
        (["rnoatime"], m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
        (["rnoatime", "rstrictatime"], m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
        (["rrelatime"], 0, m.MOUNT_ATTR__ATIME),
        (["rnorelatime"], 0, 0),
    ],
)
def test_recursive_attributes(words: list[str], attr_set: int, attr_clear: int) -> None:
    """The r-words become one mount_setattr(AT_RECURSIVE); the access-time field is always cleared as a whole."""
    found = options("rbind", *words)
    assert (found.rec_attr_set, found.rec_attr_clear) == (attr_set, attr_clear)
    assert (found.attr_set, found.attr_clear) == (0, 0)
    assert attr_clear & m.MOUNT_ATTR__ATIME in (0, m.MOUNT_ATTR__ATIME)


def test_bind_propagation_and_extensions() -> None:
    """bind, rbind, the propagation words in order, tmpcopyup and idmap each have their field."""
    found = options("rbind", "rslave", "unbindable", "ridmap")
    assert (found.bind, found.recursive, found.idmap) == (True, True, "ridmap")
    assert found.propagation == (m.MS_SLAVE | m.MS_REC, m.MS_UNBINDABLE)
    assert not options("bind").recursive
    assert options("tmpcopyup", fstype="tmpfs").tmpcopyup


def test_data_is_passed_on_in_order() -> None:
    """A file system's own options are kept, for mount(2) as one string and for fsconfig(2) one by one."""
    found = options("nosuid", "strictatime", "mode=755", "size=65536k", fstype="tmpfs")
    assert found.data == "mode=755,size=65536k"
    assert found.data_words == ("mode=755", "size=65536k")
    assert found.superblock == ()
    assert options("ro", "sync", "lazytime", fstype="tmpfs").superblock == ("ro", "sync", "lazytime")


@pytest.mark.parametrize(
    ("fstype", "word"),
    [
        ("ext4", "data=ordered"),
        ("fuse", "rootmode=40000"),
        ("cgroup", "nsdelegate"),
        ("overlay", "lowerdir=/a:/b"),
        ("overlay", "lowerdir=/a\\,b"),
        ("devpts", "ptmxmode=0666"),
        ("proc", "hidepid=invisible"),
        ("tmpfs", 'context="system_u:object_r:svirt_sandbox_file_t:s0:c715,c811"'),
        ("mqueue", "context=a"),
    ],
)
def test_file_systems_take_their_own(fstype: str, word: str) -> None:
    """Options of a known file system, of a file system that pyrun does not know, and security labels go through."""
    assert options(word, fstype=fstype).data == word


@pytest.mark.parametrize(
    ("fstype", "words", "message", "hint"),
    [
        ("none", ["rbind", "nosuidd"], "o[1]: unknown option 'nosuidd'", "did you mean 'nosuid'?"),
        ("tmpfs", ["sise=1k"], "o[0]: unknown option 'sise=1k'", "did you mean 'size'?"),
        ("tmpfs", ["size=1k,mode=777"], "o[0]: option 'size=1k,mode=777' contains a comma", "entry of its own"),
        ("ext4", ["bind", "data=ordered"], "o[1]: unknown option 'data=ordered'", "bind mount takes no options"),
        ("sysfs", ["RO"], "o[0]: unknown option 'RO'", ""),
        ("ext4", ["=1"], "o[0]: option '=1' has no name", ""),
        ("ext4", [""], "o[0]: is empty", ""),
        ("ext4", ["ro", 1], "o[1]: expected a string, got a number", ""),
        ("ext4", "ro", "o: expected an array, got a string", ""),
        ("ext4", ["a\0b"], "o[0]: contains a NUL byte", ""),
    ],
)
def test_mistakes_are_found_here(fstype: str, words: object, message: str, hint: str) -> None:
    """A mistyped option is refused with its path and the nearest known one, before any mount is tried."""
    with pytest.raises(SpecError) as caught:
        parse(words, fstype, "o")
    assert str(caught.value) == message
    assert hint in caught.value.hint


def test_flags_have_names() -> None:
    """Messages name flags, and show unknown bits in hex."""
    assert m.flag_names(0) == "0"
    assert m.flag_names(m.MS_RDONLY | m.MS_NOSUID) == "MS_RDONLY|MS_NOSUID"
    assert m.flag_names(m.MS_BIND | m.MS_REC | 1 << 31) == "MS_BIND|MS_REC|0x80000000"
    assert m.attr_names(m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOATIME) == "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOATIME"
    assert m.attr_names(m.MOUNT_ATTR__ATIME | 1) == "MOUNT_ATTR__ATIME|MOUNT_ATTR_RDONLY"
    assert m.attr_names(m.MOUNT_ATTR__ATIME) == "MOUNT_ATTR__ATIME"
