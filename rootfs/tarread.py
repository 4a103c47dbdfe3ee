# SPDX-License-Identifier: Apache-2.0
"""Tar headers, one after another, from a stream that cannot seek: ustar, pax, GNU long names, all four sparse forms.

Why not tarfile: its header code costs five times as much, keeps pax headers of any size in memory, and in the Python of
Debian 12 (3.11.2) loops for ever on some archives (CVE-2025-8194, CVE-2024-6232). A test compares the two on thousands
of generated archives. Layout of the header: tar(5), POSIX pax "Interchange Format", GNU tar manual "Sparse Formats".
"""

from __future__ import annotations

import os
import struct
from zlib import adler32

from .entry import BLOCK, CHAR, DIR, FIFO, FILE, HARDLINK, MAX_ID, SYMLINK, Entry, show, split
from .limits import DEFAULT_LIMITS, ArchiveError, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .stream import ByteStream

BLOCK_SIZE = 512
_ZEROS = bytes(BLOCK_SIZE)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
_KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"S": FILE, b"1": HARDLINK, b"2": SYMLINK, b"3": CHAR, b"4": BLOCK, b"5": DIR,
    b"6": FIFO,
}  # fmt: skip
_known: dict[bytes, int] = {}  # fields seen before: owners, modes and times are the same in entry after entry
_OCTAL = frozenset(b"01234567")
_DECIMAL = frozenset(b"0123456789")
_XATTR = b"SCHILY.xattr."


def entries(stream: ByteStream, limits: Limits = DEFAULT_LIMITS, *, require_end: bool = False) -> Iterator[Entry]:
    """Yields every entry; before asking for the next, the caller may read its `size` bytes with stream.data().

    `require_end`: the two zero blocks must be there, so that an archive cut between two entries is noticed. Leave it
    off where a digest covers the stream: some layers in the wild have no end mark.

    Raises ArchiveError for anything that is no tar archive, is cut short, or exceeds `limits`.
    """
    count = 0
    while True:
        block = stream.take(BLOCK_SIZE, optional=True)
        if not block or block == _ZEROS:
            if block and stream.take(BLOCK_SIZE, optional=True) not in (b"", _ZEROS):
                raise ArchiveError("tar archive", f"damaged: a single zero block before byte {stream.position}")
            if not block and require_end:
                raise ArchiveError("tar archive", "truncated: it has no end mark" if count else "it is empty")
            return
        count += 1
        if count > limits.max_entries:
            raise ArchiveError("tar archive", f"more than {limits.max_entries} entries")
        entry, padded = _Header(stream, limits).read(block)
        stream.begin(entry.size)
        yield entry
        stream.skip(stream.remaining + padded)


class _Header:
    """Reads one entry's header blocks: any number of extension headers, then the entry's own."""

    def __init__(self, stream: ByteStream, limits: Limits) -> None:
        self.stream = stream
        self.limits = limits
        self.pax: dict[bytes, bytes] = {}
        self.old_map: list[tuple[int, int]] = []  # GNU sparse 0.0 repeats its keys, so a dict cannot hold them
        self.long_name = b""
        self.long_link = b""
        self.name = b"?"

    def read(self, block: bytes) -> tuple[Entry, int]:
        """The entry, and how many bytes of padding follow its data."""
        extensions = 0
        while True:
            fields = _HEADER.unpack(block)
            self._check(block, fields[6])
            kind = fields[7]
            if kind not in b"xgXLK":
                return self._entry(fields, block)
            extensions += 1
            if extensions > 16:
                raise self._bad("more than 16 extension headers in a row")
            self._extension(kind, self._number(fields[4], "size"))
            block = self.stream.take(BLOCK_SIZE)

    def _check(self, block: bytes, stored: bytes) -> None:
        # The low half of Adler-32 is 1 + the sum of the bytes modulo 65521, which 256 bytes never reach: sum(block)
        # itself takes ten times as long
        total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2 - sum(stored) + 8 * 32
        digits = stored.split(b"\0", 1)[0].strip(b" ")
        said = int(digits, 8) if digits and _OCTAL.issuperset(digits) else -1
        if said != total:
            signed = sum(b - 256 if b > 127 else b for b in block[:148] + block[156:]) + 8 * 32
            if said != signed:  # old Suns summed signed bytes; tar(5) says accept both
                raise ArchiveError("tar archive", f"no tar header before byte {self.stream.position} (bad checksum)")

    def _extension(self, kind: bytes, size: int) -> None:
        if size > self.limits.max_meta:
            raise self._bad(f"an extension header of {size} bytes (the limit is {self.limits.max_meta})")
        data = self.stream.take(size)
        self.stream.skip(-size % BLOCK_SIZE)
        if kind == b"L":
            self.long_name = data.split(b"\0", 1)[0]
        elif kind == b"K":
            self.long_link = data.split(b"\0", 1)[0]
        elif kind != b"g":  # global headers carry comments (git archive); as in docker they change no entry
            self._pax(data)

    def _pax(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            space = data.find(b" ", position, position + 20)
            length = data[position:space] if space > 0 else b""
            if not length or not _DECIMAL.issuperset(length):
                raise self._bad("a damaged pax header")
            end = position + int(length)
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if end > len(data) or end <= space or not equals or data[end - 1 : end] != b"\n":
                raise self._bad("a damaged pax header")
            if key == b"GNU.sparse.offset":
                self.old_map.append((self._decimal(value, "sparse offset"), 0))
            elif key == b"GNU.sparse.numbytes" and self.old_map:
                self.old_map[-1] = (self.old_map[-1][0], self._decimal(value, "sparse length"))
            self.pax[key] = value
            position = end

    def _entry(self, fields: tuple[bytes, ...], block: bytes) -> tuple[Entry, int]:
        raw, mode, uid, gid, size, mtime, _, kind_byte, link, magic, major, minor, prefix = fields
        pax = self.pax
        name = self.long_name or raw.split(b"\0", 1)[0]
        if magic.startswith(b"ustar\0") and not self.long_name and prefix[0]:
            name = prefix.split(b"\0", 1)[0] + b"/" + name
        if pax:
            name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or name
        self.name = name
        kind = _KINDS.get(kind_byte)
        if kind is None:
            raise self._bad(f"unknown entry type {show(kind_byte)!r}")
        if kind_byte == b"\0" and name.endswith(b"/"):
            kind = DIR  # how tar said so before 1988
        entry = Entry(split(name), kind, self._number(mode, "mode") & 0o7777)
        if len(entry.parts) > self.limits.max_depth:
            raise entry.error(f"more than {self.limits.max_depth} directories deep")
        entry.uid = self._id(pax.get(b"uid"), uid, "uid")
        entry.gid = self._id(pax.get(b"gid"), gid, "gid")
        entry.mtime_ns = (
            _pax_time(pax[b"mtime"], entry) if pax.get(b"mtime") else self._number(mtime, "mtime", True) * 10**9
        )
        padding = 0
        if kind is FILE:
            stored = self._decimal(pax[b"size"], "size") if pax.get(b"size") else self._number(size, "size")
            padding = self._file(entry, stored, kind_byte, block)
        elif kind is CHAR or kind is BLOCK:
            entry.rdev = self._device(entry, self._number(major, "device"), self._number(minor, "device"))
        elif kind is SYMLINK or kind is HARDLINK:
            entry.link = pax.get(b"linkpath") or self.long_link or link.split(b"\0", 1)[0]
            if not entry.link or b"\0" in entry.link:
                raise entry.error("a link without a target")
        if pax:
            entry.xattrs = {key[len(_XATTR) :]: value for key, value in pax.items() if key.startswith(_XATTR)} or None
        return entry, padding

    def _file(self, entry: Entry, stored: int, kind: bytes, block: bytes) -> int:
        """Fills in the sizes; returns the padding after the data."""
        pax = self.pax
        padding = -stored % BLOCK_SIZE
        regions: list[tuple[int, int]] | None = None
        real = stored
        if kind == b"S":
            regions, real = self._gnu_map(block)
        elif pax and pax.get(b"GNU.sparse.major") == b"1":
            regions, used = self._map_in_data(stored)
            stored -= used
            real = self._decimal(pax.get(b"GNU.sparse.realsize", b""), "sparse size")
        elif pax and b"GNU.sparse.map" in pax:
            numbers = [self._decimal(n, "sparse map") for n in pax[b"GNU.sparse.map"].split(b",") if n]
            regions = list(zip(numbers[::2], numbers[1::2], strict=False))
            real = self._decimal(pax.get(b"GNU.sparse.size", b""), "sparse size")
        elif pax and b"GNU.sparse.size" in pax:
            regions, real = self.old_map, self._decimal(pax[b"GNU.sparse.size"], "sparse size")
        entry.size, entry.real_size = stored, real
        if real > self.limits.max_file_size:
            raise entry.error(f"a file of {real} bytes (the limit is {self.limits.max_file_size})")
        if regions is not None:
            _check_regions(entry, regions)
            entry.regions = tuple(regions)
        return padding

    def _gnu_map(self, block: bytes) -> tuple[list[tuple[int, int]], int]:
        """Old GNU: four regions in the header at 386, 21 in each extension block, and the real size at 483."""
        real = self._number(block[483:495], "sparse size")
        regions = self._gnu_regions(block[386:482], 4)
        more = block[482]
        while more:
            block = self.stream.take(BLOCK_SIZE)
            regions += self._gnu_regions(block, 21)
            more = block[504]
            self._count_regions(len(regions))
        return regions, real

    def _gnu_regions(self, table: bytes, count: int) -> list[tuple[int, int]]:
        found = []
        for at in range(0, count * 24, 24):
            if table[at] == 0:
                break
            found.append(
                (self._number(table[at : at + 12], "sparse map"), self._number(table[at + 12 : at + 24], "sparse map"))
            )
        return found

    def _map_in_data(self, stored: int) -> tuple[list[tuple[int, int]], int]:
        """GNU sparse 1.0: decimal lines before the data: how many, then offset and length of each; block-padded."""
        text, lines = b"", [b""]
        wanted = 1
        while len(lines) - 1 < wanted:
            if len(text) + BLOCK_SIZE > stored or len(text) > self.limits.max_regions * 40:
                raise self._bad("a damaged sparse map")
            text += self.stream.take(BLOCK_SIZE)
            if wanted == 1 and b"\n" in text:
                regions = self._decimal(text.split(b"\n", 1)[0], "sparse map")
                self._count_regions(regions)
                wanted = 1 + 2 * regions
            if text.count(b"\n") >= wanted:
                lines = text.split(b"\n")
        numbers = [self._decimal(line, "sparse map") for line in lines[1:wanted]]
        return list(zip(numbers[::2], numbers[1::2], strict=True)), len(text)

    def _count_regions(self, count: int) -> None:
        if count > self.limits.max_regions:
            raise self._bad(f"more than {self.limits.max_regions} sparse regions")

    def _id(self, text: bytes | None, field: bytes, what: str) -> int:
        value = self._decimal(text, what) if text else self._number(field, what)
        if value > MAX_ID:
            raise self._bad(f"{what} {value} is out of range")
        return value

    def _device(self, entry: Entry, major: int, minor: int) -> int:
        if major >= 1 << 12 or minor >= 1 << 20:  # the kernel's dev_t: MINORBITS is 20
            raise entry.error(f"device number {major}:{minor} is out of range")
        return os.makedev(major, minor)

    def _decimal(self, text: bytes, what: str) -> int:
        if not text or len(text) > 20 or not _DECIMAL.issuperset(text):
            raise self._bad(f"bad {what} '{show(text[:40])}'")
        return int(text)

    def _number(self, field: bytes, what: str, signed: bool = False) -> int:
        """A numeric field: octal digits, or (GNU) a big-endian number behind a first byte of 0x80, 0xff if negative."""
        known = _known.get(field)
        if known is None:
            known = self._new_number(field, what, signed)
            if known >= 0:
                if len(_known) >= 4096:
                    _known.clear()
                _known[field] = known
        return known

    def _new_number(self, field: bytes, what: str, signed: bool) -> int:
        if field[0] & 0x80:
            value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
            if field[0] & 0x40:
                value -= 1 << (8 * len(field) - 1)
        else:
            digits = field.split(b"\0", 1)[0].strip(b" ")
            if not _OCTAL.issuperset(digits):
                digits = field.strip(b" \0")  # some writers lead with NULs
                if not _OCTAL.issuperset(digits):
                    raise self._bad(f"bad {what} field '{show(field)}'")
            value = int(digits or b"0", 8)
        if (value < 0 and not signed) or abs(value) >= 1 << 63:
            raise self._bad(f"{what} {value} is out of range")
        return value

    def _bad(self, why: str) -> ArchiveError:
        return ArchiveError(f"archive entry '{show(self.long_name or self.name)}'", why)


def _check_regions(entry: Entry, regions: list[tuple[int, int]]) -> None:
    """Regions must ascend, not overlap, stay inside the file, and account for every stored byte."""
    end = total = 0
    for offset, length in regions:
        if offset < end or offset + length > entry.real_size:
            raise entry.error("its sparse map overlaps or leaves the file")
        end = offset + length
        total += length
    if total != entry.size:
        raise entry.error(f"its sparse map covers {total} bytes, but {entry.size} are stored")


def _pax_time(text: bytes, entry: Entry) -> int:
    """Decimal seconds, as "1700000000.123456789" or "-1.5", in nanoseconds."""
    negative = text.startswith(b"-")
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if not whole or not _DECIMAL.issuperset(whole + fraction) or len(whole) > 18:
        raise entry.error(f"bad mtime '{show(text[:40])}'")
    value = int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -value if negative else value
