# SPDX-License-Identifier: Apache-2.0
"""Build contexts: a directory, an archive or a Dockerfile on stdin, an http(s) URL, a git repository.

    with open_context(".", stdin=sys.stdin.buffer, scratch=directory) as context:
        text = context.dockerfile("")
        plan(context.tree, …)

What is not on the host already is unpacked or cloned into `scratch`, a directory of the caller's that he removes.
"""

from __future__ import annotations

import os
import stat

from pyrun.rootfs.inroot import reopen_regular
from pyrun.rootfs.limits import MIB
from pyrun.rootfs.tree import TreeWriter
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from pyrun.runtime.events import step

from . import archives, giturl
from .missing import near
from .source import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedReader
    from types import TracebackType
    from typing import Self

    from pyrun.rootfs.stream import Readable


__all__ = ["Context", "Tree", "open_context"]

MAX_DOCKERFILE = 16 * MIB
DEFAULTS = ("Dockerfile", "dockerfile")
IGNORE = ".dockerignore"


class Context:
    """An open build context; a `with` block closes it.

    tree        what COPY takes from; its `ignore` is that of the Dockerfile once dockerfile() was called
    source      as given: for messages and for the build's record
    remote      whether it came from stdin or the network, so that -f means a path in it
    """

    def __init__(
        self, tree: Tree, source: str, *, stdin: Readable | None = None, remote: bool = False, text: bytes | None = None
    ) -> None:
        self.tree = tree
        self.source = source
        self.remote = remote
        self.path = ""  # of the Dockerfile that was read, for messages
        self._stdin = stdin
        self._text = text
        try:
            self._load_ignore((IGNORE.encode(),))
        except BaseException:
            tree.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the tree, after writing down the digests that are new."""
        if self.tree.hashes is not None:
            self.tree.hashes.save()
        self.tree.close()

    def dockerfile(self, path: str = "", *, cwd: str = "") -> bytes:
        """The text of the Dockerfile; loads <Dockerfile>.dockerignore if there is one beside it.

        path: "" for Dockerfile or dockerfile in the context; "-" for stdin; a path on the host, relative to the working
        directory (`cwd`) and, if there is none, to the context; of a context that is not local, a path in it.

        Raises NotFound, with the names that come near, PyrunError for what cannot be read.
        """
        if path == "-":
            self.path = "-"
            if self._stdin is None:
                raise UsageError("cannot read both the context and the Dockerfile from stdin")
            return _limited(self._stdin, "the Dockerfile on stdin")
        if self._text is not None and not path:
            self.path = "Dockerfile"
            return self._text
        if path and not self.remote:
            on_host = os.path.join(cwd, path)
            if os.path.lexists(on_host) or os.path.isabs(path):
                return self._on_host(on_host, path)
        return self._inside(path)

    def _on_host(self, on_host: str, path: str) -> bytes:
        self.path = path
        try:
            # what the shell makes of <(command) is a pipe; anywhere else one would only block
            with _open_regular(on_host, pipes=on_host.startswith(("/dev/fd/", "/dev/stdin", "/proc/self/fd/"))) as file:
                text = _limited(file, path)
        except FileNotFoundError:
            raise NotFound(f"no Dockerfile '{path}'", hint=_near_on_host(on_host)) from None
        except OSError as error:
            raise PyrunError(f"cannot read '{path}'", (error.strerror or str(error)).lower()) from error
        own = f"{on_host}.dockerignore"
        try:
            with _open_regular(own) as file:
                self._use_ignore(_limited(file, own), f"{path}.dockerignore")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise PyrunError(f"cannot read '{own}'", (error.strerror or str(error)).lower()) from error
        return text

    def _inside(self, path: str) -> bytes:
        for name in (path,) if path else DEFAULTS:
            parts = tuple(part for part in os.fsencode(name).split(b"/") if part)
            try:
                text = self.tree.stack.read(parts, MAX_DOCKERFILE)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise PyrunError(
                    f"cannot read '{name}' of {self.tree.name}", (error.strerror or str(error)).lower()
                ) from error
            self.path = name
            resolved = self.tree.stack.resolve(parts[:-1])
            self._load_ignore((*resolved, parts[-1] + b".dockerignore"))
            return text
        raise self._no_dockerfile(path)

    def _load_ignore(self, parts: tuple[bytes, ...]) -> None:
        """Takes the rules of a file in the context, if it is there."""
        name = os.fsdecode(b"/".join(parts))
        try:
            self._use_ignore(self.tree.stack.read(parts, MAX_DOCKERFILE), name)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise PyrunError(
                f"cannot read '{name}' of {self.tree.name}", (error.strerror or str(error)).lower()
            ) from error

    def _use_ignore(self, data: bytes, name: str) -> None:
        from .ignore import Ignore

        found = Ignore.parse(data.decode("utf-8", "surrogateescape"), path=name)
        self.tree.ignore = found if found.rules else None
        self.tree.ignore_name = name

    def _no_dockerfile(self, path: str) -> NotFound:
        where = f"'{self.source}'" if self.source != "-" else "the archive on stdin"
        wanted = path or "Dockerfile"
        above = tuple(part for part in os.fsencode(wanted).split(b"/")[:-1] if part)
        try:
            names = [os.fsdecode(name) for name in self.tree.stack.list(self.tree.stack.resolve(above))]
        except OSError:
            names = []
        what = f"no file '{path}' in {where}" if path else f"no Dockerfile in {where}"
        return NotFound(what, hint=_suggest(os.path.basename(wanted), names))


def open_context(
    source: str,
    *,
    stdin: Readable,
    scratch: str,
    hashes: str = "",
    allow_file: bool = False,
    keep_git_dir: bool | None = None,
) -> Context:
    """The build context that PATH, URL or "-" of the command line names.

    Args:
        stdin: where "-" is read from, as context or as Dockerfile.
        scratch: an existing directory, empty, on a file system with room, for what is not on the host yet.
        hashes: the directory that keeps digests of contexts' files between builds, "" for none.
        allow_file: whether file:// git URLs may be cloned.
        keep_git_dir: whether a repository's .git is part of the context; None leaves it to the URL.

    Raises NotFound for a directory that is not there, UsageError, PyrunError for downloads and archives that fail.
    """
    if source == "-":
        return _from_stream(stdin, source, scratch)
    repository = giturl.parse(source, allow_file=allow_file)
    if repository is not None and not (repository.maybe_local and os.path.isdir(source)):
        from . import git, remote

        directory = git.clone(repository, scratch=scratch, allow_file=allow_file, keep_git_dir=keep_git_dir)
        return Context(
            Tree.directory(directory, f"the repository {remote.shown(repository.remote)}"),
            source,
            stdin=stdin,
            remote=True,
        )
    if source.startswith(("http://", "https://")):
        from . import remote

        found = remote.fetch(source, "", scratch)
        with open(found.path, "rb") as file:
            context = _from_stream(file, source, scratch)
        context._stdin = stdin
        return context
    return _local(source, stdin, hashes)


def _local(source: str, stdin: Readable, hashes: str) -> Context:
    if not source:
        raise UsageError("no build context", hint="name a directory, such as '.'")
    try:
        from .hashes import Hashes

        tree = Tree.directory(os.path.realpath(source), hashes=Hashes.of(hashes, source))
        return Context(tree, source, stdin=stdin)
    except FileNotFoundError:
        raise NotFound(f"no directory '{source}' for the build context", hint=_near_on_host(source)) from None
    except NotADirectoryError:
        raise UsageError(
            f"build context '{source}'",
            "it is a file, not a directory",
            hint=f"build -f {source} {os.path.dirname(source) or '.'}",
        ) from None
    except PermissionError:
        raise PyrunError(f"cannot read the build context '{source}'", "permission denied") from None


def _from_stream(stream: Readable, source: str, scratch: str) -> Context:
    """An archive, which is unpacked, or a Dockerfile with an empty context."""
    root = os.path.join(scratch, "context")
    os.mkdir(root, 0o755)
    head = stream.read(1 << 16)
    while len(head) < 1 << 16 and (more := stream.read((1 << 16) - len(head))):
        head += more
    name = "the archive on stdin" if source == "-" else f"the archive {source}"
    if not archives.head_is_archive(head):
        what = "the Dockerfile on stdin" if source == "-" else f"the Dockerfile {source}"
        text = head + _limited(stream, what)
        if b"\0" in text:
            raise UsageError(
                f"build context {'on stdin' if source == '-' else source}", "neither a tar archive nor a Dockerfile"
            )
        if not text.strip():
            raise UsageError(what, "it is empty")
        return Context(Tree.directory(root, "the build context, which is empty"), source, remote=True, text=text)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with step("build", f"unpack {name}"), TreeWriter(fd, owner=(os.geteuid(), os.getegid())) as writer:
            archives.unpack(_Joined(head, stream), writer, ())
    finally:
        os.close(fd)
    return Context(Tree.directory(root, name), source, remote=True)


class _Joined:
    """What was read already, and the rest of a stream."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self.head = head
        self.rest = rest

    def read(self, size: int, /) -> bytes:
        if self.head:
            part, self.head = self.head[:size], self.head[size:]
            return part
        return self.rest.read(size)


def _open_regular(path: str, *, pipes: bool = False) -> BufferedReader:
    """A file of the host for reading; what is no regular file is not opened, but for a pipe if that is meant."""
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if pipes and stat.S_ISFIFO(os.fstat(handle).st_mode):
            return open(path, "rb")
        return open(reopen_regular(handle, path), "rb")
    finally:
        os.close(handle)


def _limited(file: Readable, what: str) -> bytes:
    parts, left = [], MAX_DOCKERFILE + 1
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    if not left:
        raise PyrunError(f"cannot read {what}", f"it is larger than {MAX_DOCKERFILE // MIB} MiB")
    return b"".join(parts)


def _suggest(wanted: str, names: list[str]) -> str:
    close = sorted(name for name in names if near(wanted, name) or name.lower().startswith(f"{wanted.lower()}."))
    close += [name for name in sorted(names) if name.lower() in ("containerfile",) and name not in close]
    close = [name for name in close if not name.endswith(".dockerignore")]
    if not close:
        return "name it with -f, or use another directory"
    return (
        f"there is '{close[0]}': name it with -f"
        if len(close) == 1
        else f"there are {', '.join(close[:4])}: name one with -f"
    )


def _near_on_host(path: str) -> str:
    above = os.path.dirname(path) or "."
    try:
        names = os.listdir(above)
    except OSError:
        return ""
    close = sorted(name for name in names if near(os.path.basename(path.rstrip("/")), name))
    return f"did you mean '{os.path.join(os.path.dirname(path), close[0])}'?" if close else ""
