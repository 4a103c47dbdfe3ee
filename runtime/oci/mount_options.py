# SPDX-License-Identifier: Apache-2.0
"""The mount options of the OCI runtime-spec (config.md, Linux mount options), as one table.

    parse(["rbind", "ro", "rslave"], "none", "config.json: mounts[3].options") -> MountOptions

A word means the same as in mount(8); later words win over earlier ones. Each carries its flag twice: as MS_* for
mount(2) and as MOUNT_ATTR_* for fsmount(2) and mount_setattr(2). What is no word of the table belongs to the file
system: it is passed on as `data`, but only if that file system can know it, so that a typing error is found here,
with a suggestion, and not in the kernel's log.
"""

from __future__ import annotations

from pyrun.runtime.record import Record

from .reader import texts, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# <linux/mount.h>, the UAPI header: mount(2).
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 0x10, 0x20, 0x40, 0x80
MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME, MS_BIND = 0x100, 0x400, 0x800, 0x1000
MS_MOVE, MS_REC, MS_SILENT, MS_POSIXACL = 0x2000, 0x4000, 0x8000, 0x10000
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x20000, 0x40000, 0x80000, 0x100000
MS_RELATIME, MS_I_VERSION, MS_STRICTATIME, MS_LAZYTIME = 0x200000, 0x800000, 0x1000000, 0x2000000

# <linux/mount.h>: fsmount(2), mount_setattr(2). The three access-time modes are one field, MOUNT_ATTR__ATIME.
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
MOUNT_ATTR_RELATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME = 0x0, 0x10, 0x20, 0x70
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_IDMAP, MOUNT_ATTR_NOSYMFOLLOW = 0x80, 0x100000, 0x200000

# mount_setattr(2) refuses an access-time mode in attr_set unless the whole field is in attr_clr.
_ATIME_MODE = {
    "noatime": MOUNT_ATTR_NOATIME,
    "strictatime": MOUNT_ATTR_STRICTATIME,
    "relatime": MOUNT_ATTR_RELATIME,
    "atime": MOUNT_ATTR_RELATIME,  # "not noatime": the kernel's default, which is relatime since 2.6.30
    "nostrictatime": MOUNT_ATTR_RELATIME,
}

# word -> (MS_* flag, whether the word clears it, MOUNT_ATTR_* bit or 0 where there is none)
FLAGS: dict[str, tuple[int, bool, int]] = {
    "ro": (MS_RDONLY, False, MOUNT_ATTR_RDONLY),
    "rw": (MS_RDONLY, True, MOUNT_ATTR_RDONLY),
    "nosuid": (MS_NOSUID, False, MOUNT_ATTR_NOSUID),
    "suid": (MS_NOSUID, True, MOUNT_ATTR_NOSUID),
    "nodev": (MS_NODEV, False, MOUNT_ATTR_NODEV),
    "dev": (MS_NODEV, True, MOUNT_ATTR_NODEV),
    "noexec": (MS_NOEXEC, False, MOUNT_ATTR_NOEXEC),
    "exec": (MS_NOEXEC, True, MOUNT_ATTR_NOEXEC),
    "nosymfollow": (MS_NOSYMFOLLOW, False, MOUNT_ATTR_NOSYMFOLLOW),  # MS_ since 5.10, MOUNT_ATTR_ since 5.14
    "symfollow": (MS_NOSYMFOLLOW, True, MOUNT_ATTR_NOSYMFOLLOW),
    "nodiratime": (MS_NODIRATIME, False, MOUNT_ATTR_NODIRATIME),
    "diratime": (MS_NODIRATIME, True, MOUNT_ATTR_NODIRATIME),
    "noatime": (MS_NOATIME, False, 0),  # the attributes of these six: _ATIME_MODE
    "atime": (MS_NOATIME, True, 0),
    "relatime": (MS_RELATIME, False, 0),
    "norelatime": (MS_RELATIME, True, 0),
    "strictatime": (MS_STRICTATIME, False, 0),
    "nostrictatime": (MS_STRICTATIME, True, 0),
    "sync": (MS_SYNCHRONOUS, False, 0),  # from here on: of the superblock, not of the mount
    "async": (MS_SYNCHRONOUS, True, 0),
    "dirsync": (MS_DIRSYNC, False, 0),
    "mand": (MS_MANDLOCK, False, 0),  # ignored by the kernel since 5.15
    "nomand": (MS_MANDLOCK, True, 0),
    "lazytime": (MS_LAZYTIME, False, 0),
    "nolazytime": (MS_LAZYTIME, True, 0),
    "iversion": (MS_I_VERSION, False, 0),
    "noiversion": (MS_I_VERSION, True, 0),
    "silent": (MS_SILENT, False, 0),
    "loud": (MS_SILENT, True, 0),
    "bind": (MS_BIND, False, 0),
    "rbind": (MS_BIND | MS_REC, False, 0),
    "remount": (MS_REMOUNT, False, 0),
    "defaults": (0, False, 0),
}

PROPAGATION: dict[str, int] = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

# mount_setattr(2) with AT_RECURSIVE, since 5.12: the mount and all below it. word -> the word of FLAGS it repeats.
RECURSIVE: dict[str, str] = {f"r{word}": word for word, (_, _, attr) in FLAGS.items() if attr or word.endswith("atime")}

# Words with a meaning of their own, which is not a flag's.
EXTENSIONS = ("tmpcopyup", "idmap", "ridmap")

# mount(8) reads these in fstab and the kernel never sees them; `user` and friends stand for flags.
USERSPACE: dict[str, tuple[str, ...]] = {
    "auto": (),
    "noauto": (),
    "nofail": (),
    "_netdev": (),
    "nouser": (),
    "user": ("noexec", "nosuid", "nodev"),
    "users": ("noexec", "nosuid", "nodev"),
    "owner": ("nosuid", "nodev"),
    "group": ("nosuid", "nodev"),
}

# The superblock's own flags under the names that fsconfig(2) FSCONFIG_SET_FLAG takes.
SUPERBLOCK: dict[str, int] = {
    "ro": MS_RDONLY,
    "sync": MS_SYNCHRONOUS,
    "dirsync": MS_DIRSYNC,
    "mand": MS_MANDLOCK,
    "lazytime": MS_LAZYTIME,
}

# Options of the file systems that every container uses. A type that is not listed takes anything: only its driver
# knows. Sources: Documentation/filesystems/{tmpfs,proc,overlayfs}.rst, devpts, cgroup-v2.rst; up to kernel 6.18.
DATA: dict[str, tuple[str, ...]] = {
    "tmpfs": (
        "size",
        "nr_blocks",
        "nr_inodes",
        "mode",
        "uid",
        "gid",
        "huge",
        "mpol",
        "inode32",
        "inode64",
        "noswap",
        "quota",
        "usrquota",
        "grpquota",
        "usrquota_block_hardlimit",
        "usrquota_inode_hardlimit",
        "grpquota_block_hardlimit",
        "grpquota_inode_hardlimit",
        "casefold",
        "strict_encoding",
    ),
    "proc": ("hidepid", "gid", "subset", "pidns"),
    "sysfs": (),
    "mqueue": (),
    "devpts": ("newinstance", "ptmxmode", "mode", "uid", "gid", "max"),
    "cgroup2": (
        "nsdelegate",
        "favordynmods",
        "nofavordynmods",
        "memory_localevents",
        "memory_recursiveprot",
        "memory_hugetlb_accounting",
        "pids_localevents",
    ),
    "overlay": (
        "lowerdir",
        "lowerdir+",
        "datadir+",
        "upperdir",
        "workdir",
        "default_permissions",
        "redirect_dir",
        "index",
        "uuid",
        "nfs_export",
        "xino",
        "metacopy",
        "volatile",
        "userxattr",
        "verity",
        "override_creds",
        "nooverride_creds",
    ),
}
# Of every file system, where the security module is there; their values may contain commas in quotes.
_LABELS = ("context", "fscontext", "defcontext", "rootcontext", "seclabel", "smackfsdef", "smackfsroot")


class MountOptions(Record):
    """The options of one mount, sorted by who acts on them.

    set_flags, clear_flags: MS_* that were asked for, and MS_* that were asked not to be there (they matter where a
        flag would be inherited: a bind mount or a remount).
    attr_set, attr_clear: the same per-mount flags as MOUNT_ATTR_*, ready for mount_setattr(2).
    rec_attr_set, rec_attr_clear: MOUNT_ATTR_* for the mount and everything below it (`rro` and its kin).
    propagation: MS_SHARED and so on, with MS_REC, in order; each is a call of its own.
    superblock: names for FSCONFIG_SET_FLAG, such as "ro" or "sync".
    data: the file system's own options, comma-separated for mount(2); data_words: the same, one by one for fsconfig(2).
    idmap: "" or "idmap" or "ridmap". words: what the configuration said.
    """

    set_flags: int = 0
    clear_flags: int = 0
    attr_set: int = 0
    attr_clear: int = 0
    rec_attr_set: int = 0
    rec_attr_clear: int = 0
    bind: bool = False
    recursive: bool = False
    propagation: tuple[int, ...] = ()
    superblock: tuple[str, ...] = ()
    data: str = ""
    data_words: tuple[str, ...] = ()
    tmpcopyup: bool = False
    idmap: str = ""
    words: tuple[str, ...] = ()

    @property
    def readonly(self) -> bool:
        """Whether the mount itself is to be read-only."""
        return bool(self.set_flags & MS_RDONLY)


class _Sorter:
    """What parse() has seen so far."""

    def __init__(self) -> None:
        self.set = self.clear = 0
        self.attr = [0, 0]  # set, clear
        self.rec_attr = [0, 0]
        self.propagation: list[int] = []
        self.data: list[str] = []
        self.tmpcopyup = False
        self.idmap = ""

    def take(self, word: str) -> bool:
        """Notes `word` if it is in the tables."""
        if word in FLAGS:
            flag, clears, attr = FLAGS[word]
            if clears:
                self.set, self.clear = self.set & ~flag, self.clear | flag
            else:
                self.set, self.clear = self.set | flag, self.clear & ~flag
            _attribute(self.attr, word, clears, attr)
        elif word in PROPAGATION:
            self.propagation.append(PROPAGATION[word])
        elif word in RECURSIVE:
            _, clears, attr = FLAGS[RECURSIVE[word]]
            _attribute(self.rec_attr, RECURSIVE[word], clears, attr)
        elif word in USERSPACE:
            for implied in USERSPACE[word]:
                self.take(implied)
        elif word in EXTENSIONS:
            self.tmpcopyup |= word == "tmpcopyup"
            self.idmap = word if word != "tmpcopyup" else self.idmap
        else:
            return word.startswith(("x-", "X-", "comment="))  # mount(8): for other programs to read
        return True


def _attribute(pair: list[int], word: str, clears: bool, attr: int) -> None:
    if word in _ATIME_MODE:
        pair[0] = pair[0] & ~MOUNT_ATTR__ATIME | _ATIME_MODE[word]
        pair[1] |= MOUNT_ATTR__ATIME
    elif clears:
        pair[0] &= ~attr
        pair[1] |= attr
    else:
        pair[0] |= attr
        pair[1] &= ~attr


def parse(raw: Any, fstype: str, where: str) -> MountOptions:
    """The options in the JSON array `raw` of a mount of type `fstype` ("" or "none" for a bind mount).

    Raises SpecError with the path of the option that no one can know.
    """
    words = texts(raw, where)
    bind = "bind" in words or "rbind" in words
    seen = _Sorter()
    for index, word in enumerate(words):
        if not seen.take(word):
            _check_data(word, "bind" if bind else fstype, f"{where}[{index}]")
            seen.data.append(word)
    return MountOptions(
        set_flags=seen.set,
        clear_flags=seen.clear,
        attr_set=seen.attr[0],
        attr_clear=seen.attr[1],
        rec_attr_set=seen.rec_attr[0],
        rec_attr_clear=seen.rec_attr[1],
        bind=bind,
        recursive=bool(seen.set & MS_REC),
        propagation=tuple(seen.propagation),
        superblock=tuple([name for name, flag in SUPERBLOCK.items() if seen.set & flag]),
        data=",".join(seen.data),
        data_words=tuple(seen.data),
        tmpcopyup=seen.tmpcopyup,
        idmap=seen.idmap,
        words=words,
    )


def _check_data(word: str, fstype: str, where: str) -> None:
    """Raises SpecError if the file system cannot know the option `word`."""
    name = word.partition("=")[0]
    if not name:
        raise wrong(where, "is empty" if not word else f"option {word!r} has no name")
    known = DATA.get(fstype)
    if name in _LABELS or (known is None and fstype not in ("bind", "none", "")):
        return
    if known is None or name not in known:
        from .nearest import did_you_mean

        hint = did_you_mean(name, (*FLAGS, *PROPAGATION, *RECURSIVE, *EXTENSIONS, *(known or ())))
        if fstype == "bind" and not hint:
            hint = "a bind mount takes no options of a file system: the kernel would ignore them"
        raise wrong(where, f"unknown option {word!r}", hint=hint)
    if "," in word.replace("\\,", ""):  # overlay escapes commas in paths
        raise wrong(where, f"option {word!r} contains a comma", hint="give each option as an entry of its own")


def known_options() -> tuple[str, ...]:
    """Every word of the tables, sorted: what `features` reports as mountOptions."""
    return tuple(sorted((*FLAGS, *PROPAGATION, *RECURSIVE, *EXTENSIONS)))


def flag_names(flags: int) -> str:
    """MS_* `flags` by name, for messages: "MS_RDONLY|MS_NOSUID"; unknown bits in hex; "0" for none."""
    return _names(flags, "MS_")


def attr_names(attributes: int) -> str:
    """MOUNT_ATTR_* bits by name, for messages."""
    whole = attributes & MOUNT_ATTR__ATIME == MOUNT_ATTR__ATIME
    rest = _names(attributes & ~MOUNT_ATTR__ATIME, "MOUNT_ATTR_") if whole else ""
    if not whole:
        return _names(attributes, "MOUNT_ATTR_")
    return "MOUNT_ATTR__ATIME" + (f"|{rest}" if rest != "0" else "")


def _names(flags: int, prefix: str) -> str:
    names = []
    for name, value in globals().items():
        if name.startswith(prefix) and name != "MOUNT_ATTR__ATIME" and value and flags & value:
            names.append(name)
            flags &= ~value
    if flags:
        names.append(f"{flags:#x}")
    return "|".join(names) or "0"
