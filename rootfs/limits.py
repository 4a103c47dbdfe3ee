# SPDX-License-Identifier: Apache-2.0
"""How much an archive may ask for: every number has its reason, every one can be replaced by the caller."""

from __future__ import annotations

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.record import Record

MIB = 1 << 20
GIB = 1 << 30


class ArchiveError(PyrunError):
    """An archive is damaged, hostile or too big; `what` names the entry, the blob or the file. Exit code 125.

    `errno` is that of a failed system call, such as ENOSPC, else 0.
    """

    errno = 0


class Limits(Record):
    """What one archive (a layer, a saved image, a tar for `cp`) may cost.

    max_bytes      uncompressed stream: the largest published images (CUDA, ROCm, PyTorch) stay below 30 GiB a layer
    max_entries    a full Debian desktop has 400,000 files; the largest node_modules images about a million
    max_depth      directories in a path: a kernel tree has 14, deep node_modules 60; PATH_MAX allows 2,048
    max_ratio      uncompressed : compressed. Text reaches 20, zero-filled database files a few hundred; gzip's own end
                   is 1,032, zstd has none. Only looked at beyond ratio_floor bytes, so that small images of zeros load
    max_meta       one pax or GNU long-name header in bytes, held in memory: xattr values end at 64 KiB, paths at 4 KiB
    max_regions    data regions of one sparse file, held in memory
    max_file_size  apparent size of one file: /var/log/lastlog with 32-bit user ids is 1.2 TiB of hole
    max_json       a manifest or config in bytes; registries refuse manifests above 4 MiB
    """

    max_bytes: int = 128 * GIB
    max_entries: int = 4_000_000
    max_depth: int = 256
    max_ratio: int = 200
    ratio_floor: int = 2 * GIB
    max_meta: int = MIB
    max_regions: int = 1 << 17
    max_file_size: int = 2 << 40
    max_json: int = 8 * MIB


DEFAULT_LIMITS = Limits()
