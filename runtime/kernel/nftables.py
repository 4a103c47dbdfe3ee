# SPDX-License-Identifier: Apache-2.0
"""nft(8) commands run in this process through libnftables(3): 0.2 ms where `nft -f -` takes 4.

Every call is one transaction: all of its commands take effect or none does.
"""

from __future__ import annotations

import errno
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NETLINK_NETFILTER = 12  # <linux/netlink.h>; the socket module does not name it

# nft reports the kernel's answer as the text of strerror(3); this is the way back.
_ERRNO_OF_TEXT = {os.strerror(number): number for number in sorted(errno.errorcode, reverse=True)}


class NftError(OSError):
    """nft refused `commands`: `errno` is the kernel's answer, EINVAL for a syntax error."""

    def __init__(self, message: str, commands: str) -> None:
        first = message.strip().split("\n", 1)[0].removeprefix("Error: ")
        reason = first.removeprefix("Could not process rule: ").split("; did you mean", 1)[0]
        super().__init__(_ERRNO_OF_TEXT.get(reason, errno.EINVAL), reason)
        self.message = message
        self.commands = commands

    def __str__(self) -> str:
        return f"nft: {self.strerror}"


# Contexts that have done their work. Closing a netfilter socket takes 5 to 20 ms whenever anybody has deleted anything
# just before (the kernel waits until it is freed, an RCU grace period), so that is left to the end of the process.
_lingering: list[Any] = []
_lingering_pid = 0  # a fork's copies of them are not its own: their fd numbers may mean something else there
MAX_LINGERING = 8
_probed = False


def run(commands: str, *, json: bool = False, handles: bool = False, terse: bool = False) -> str:
    """What `nft [-j] [-a] [-t] commands` prints; numbers stay numbers (no names of services or protocols).

    Works in the network namespace of the calling thread. `terse` leaves out the elements of sets and maps.
    Raises NftError when nft or the kernel refuses, OSError when there is no netfilter netlink socket to be had (a
    kernel without nf_tables; EPERM shows up later, as an NftError), ImportError when libnftables.so.1 is missing.
    """
    global _probed
    if not _probed:
        # libnftables 1.0.6 calls exit(3) when it cannot open this socket; a process that others depend on asks first.
        # Not closed either, and without a Python object that might close the number once it is somebody else's.
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER).detach()
        _probed = True
    from pyrun.runtime.kernel import _nftables  # loads libnftables, libxtables, jansson and gmp: only who needs it pays

    lib: Any = _nftables.lib
    ffi: Any = _nftables.ffi
    flags = lib.NFT_CTX_OUTPUT_NUMERIC_ALL | lib.NFT_CTX_OUTPUT_STATELESS
    flags |= lib.NFT_CTX_OUTPUT_JSON if json else 0
    flags |= lib.NFT_CTX_OUTPUT_HANDLE if handles else 0
    flags |= lib.NFT_CTX_OUTPUT_TERSE if terse else 0
    result = ffi.new("struct pyrun_nft_result *")
    keep = ffi.new("void **")
    failed: int = lib.pyrun_nft_run(os.fsencode(commands), flags, result, keep)
    if failed:
        raise OSError(failed, os.strerror(failed))
    _let_linger(lib, keep[0])
    try:
        output: str = ffi.string(result.output).decode("utf-8", "surrogateescape")
        error: str = ffi.string(result.error).decode("utf-8", "surrogateescape")
        if result.status != 0:
            raise NftError(error, commands)
        return output
    finally:
        lib.pyrun_nft_free(result)


def _let_linger(lib: Any, context: Any) -> None:
    global _lingering_pid
    if _lingering_pid != os.getpid():
        _lingering_pid = os.getpid()
        _lingering.clear()
    _lingering.append(context)
    while len(_lingering) > MAX_LINGERING:
        lib.pyrun_nft_close(_lingering.pop(0))
