# SPDX-License-Identifier: Apache-2.0
"""An image as what its archive says: the config, and every file of the layers put together. For comparing two builders.

image = likeness.read("saved.tar")          # what `docker save` or `pyrun save` wrote: one image
image.config, image.history, image.files    # as plain data, without times and without what says nothing
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from typing import Any

XATTR = "SCHILY.xattr."
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
KINDS = {
    tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo",
}  # fmt: skip
# ArgsEscaped: an old BuildKit's, for Windows, which newer ones write no more. Image, Hostname, …: of `docker commit`
NOT_COMPARED = ("ArgsEscaped", "Image", "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr")


@dataclass(frozen=True)
class Likeness:
    """config: without empty fields. history: (created_by, whether there is a layer). files: path -> what is there.

    layers: of each one that changes anything the paths, "-" before one that is removed; without directories, as a
    builder may name those on the way.
    """

    config: dict[str, Any]
    history: tuple[tuple[str, bool], ...]
    files: dict[str, str]
    layers: tuple[frozenset[str], ...]
    platform: tuple[str, ...]


class _Node:
    """A file, whatever its names."""

    def __init__(self, text: str) -> None:
        self.text = text


def read(path: str) -> Likeness:
    """The image in a docker-archive."""
    with tarfile.open(path) as archive:
        manifest = json.load(_file(archive, "manifest.json"))[0]
        document = json.load(_file(archive, manifest["Config"]))
        files: dict[str, _Node] = {}
        layers = []
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=_file(archive, name)) as layer:
                layers.append(frozenset(_apply(layer, files)))
    config = {key: value for key, value in document["config"].items() if value and key not in NOT_COMPARED}
    history = tuple(_said(str(item.get("created_by", "")), not item.get("empty_layer")) for item in document["history"])
    platform = tuple(str(document.get(key, "")) for key in ("os", "architecture", "variant", "author"))
    return Likeness(config, history, _shown(files), tuple(layer for layer in layers if layer), platform)


def _said(text: str, layer: bool) -> tuple[str, bool]:
    """A line of history, in the words that all versions of BuildKit and pyrun have in common."""
    text = text.removesuffix(" # buildkit")
    name, _, rest = text.partition(" ")
    if name in ("COPY", "ADD"):  # today's have the flags in it
        rest = " ".join(word for word in rest.split(" ") if not word.startswith(("--chown=", "--chmod=")))
    elif name == "EXPOSE":  # a Go map once, a list today
        rest = " ".join(sorted(rest.removeprefix("map").strip("[]").replace(":{}", "").split()))
    elif name == "HEALTHCHECK":  # Go's way to print a structure, another one in each version
        rest = ""
    elif name == "WORKDIR":  # pyrun makes no layer for a directory that is there, BuildKit an empty one
        return f"{name} {rest.rstrip('/')}", False
    return f"{name} {rest}", layer


def _file(archive: tarfile.TarFile, name: str) -> Any:
    found = archive.extractfile(name)
    assert found is not None, name
    return found


def _apply(layer: tarfile.TarFile, files: dict[str, _Node]) -> list[str]:
    """Puts a layer on top of `files`; what it changes."""
    changed = []
    mine: set[str] = set()
    for info in layer:
        path = info.name.removeprefix("./").strip("/")
        parent, _, name = path.rpartition("/")
        if name == OPAQUE:
            for below in [known for known in files if known.startswith(f"{parent}/") and known not in mine]:
                del files[below]
            continue
        if name.startswith(WHITEOUT):
            gone = f"{parent}/{name.removeprefix(WHITEOUT)}".lstrip("/")
            _remove(files, gone)
            changed.append(f"-{gone}")
            continue
        if not path or path == ".":
            continue
        mine.add(path)
        if not info.isdir():
            _remove(files, path)
            changed.append(path)
        elif path in files and not files[path].text.startswith("dir"):
            _remove(files, path)
        files[path] = files[info.linkname.removeprefix("./").lstrip("/")] if info.islnk() else _Node(_text(layer, info))
    return changed


def _remove(files: dict[str, _Node], path: str) -> None:
    for known in [known for known in files if known == path or known.startswith(f"{path}/")]:
        del files[known]


def _text(layer: tarfile.TarFile, info: tarfile.TarInfo) -> str:
    """Kind, mode, owner, and whatever else there is of a file but its times."""
    words = [KINDS[info.type], f"{info.mode & 0o7777:04o}", f"{info.uid}:{info.gid}"]
    if info.issym():
        words.append(f"-> {info.linkname}")
    if info.ischr() or info.isblk():
        words.append(f"{info.devmajor}:{info.devminor}")
    if info.isreg():
        data = _file(layer, info.name).read() if info.name else b""
        words.append(repr(data) if len(data) < 200 else hashlib.sha256(data).hexdigest())
    words += [
        f"{key.removeprefix(XATTR)}={value!r}"
        for key, value in sorted(info.pax_headers.items())
        if key.startswith(XATTR)
    ]
    return " ".join(words)


def _shown(files: dict[str, _Node]) -> dict[str, str]:
    """The text of each path; of several names of one file the first one in order, and that it is the same."""
    names: dict[int, str] = {}
    shown = {}
    for path in sorted(files):
        node = files[path]
        first = names.setdefault(id(node), path)
        shown[path] = node.text if first == path else f"= {first}"
    return shown


def differences(ours: Likeness, theirs: Likeness) -> list[str]:
    """One line for each field and each path that is not the same."""
    lines = []
    for key in sorted({*ours.config, *theirs.config}):
        if ours.config.get(key) != theirs.config.get(key):
            lines.append(f"config {key}: {ours.config.get(key)} is not {theirs.config.get(key)}")
    if ours.platform != theirs.platform:
        lines.append(f"platform: {ours.platform} is not {theirs.platform}")
    for number in range(max(len(ours.history), len(theirs.history))):
        here, there = (list(side.history[number : number + 1]) for side in (ours, theirs))
        if here != there:
            lines.append(f"history {number}: {here} is not {there}")
    for path in sorted({*ours.files, *theirs.files}):
        if ours.files.get(path) != theirs.files.get(path):
            lines.append(f"file {path}: {ours.files.get(path)} is not {theirs.files.get(path)}")
    if len(ours.layers) != len(theirs.layers):
        lines.append(f"layers: {len(ours.layers)} are not {len(theirs.layers)}")
    for number, (mine, other) in enumerate(zip(ours.layers, theirs.layers, strict=False)):
        if mine != other:
            lines.append(
                f"layer {number}: {sorted(mine - other)[:9]} are only in ours, {sorted(other - mine)[:9]} in theirs"
            )
    return lines
