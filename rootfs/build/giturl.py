# SPDX-License-Identifier: Apache-2.0
"""Git URLs as build contexts and sources of ADD: which strings are some, and what they ask for.

BuildKit's forms (docs.docker.com, "Build context", "Git repositories"): https://host/path.git, ssh://, git://,
user@host:path, github.com/…; behind it `#ref:directory` or `?ref=…&subdir=…`.
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

_SCHEMES = ("http", "https", "ssh", "git")
_USER = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_HOST = _USER - {"_"} | {"."}
_HEX = frozenset("0123456789abcdef")
_TRUE = {"1": True, "t": True, "true": True, "": True, "0": False, "f": False, "false": False}


class Repository(Record):
    """A repository and what is wanted of it.

    remote      the URL for git itself, without fragment and query
    ref         branch, tag, commit or full ref; "" for what HEAD is there
    subdir      the directory to take, relative to the top; "" for all
    commit      what the ref must lead to (?commit=, --checksum), or ""
    keep_git    whether .git is kept; None for not said
    submodules  whether they are cloned too
    maybe_local a directory of this name comes first (github.com/…)
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    commit: str = ""
    keep_git: bool | None = None
    submodules: bool = True
    maybe_local: bool = False


def parse(text: str, *, allow_file: bool = False) -> Repository | None:
    """The repository that `text` names, None if it is no git URL. Raises UsageError for one that is wrong."""
    if text.startswith(("./", "../", "/")):
        return None
    body, _, fragment = text.partition("#")
    text = masked(text)  # for messages
    body, asked, query = body.partition("?")
    scheme, divided, rest = body.partition("://")
    local = text.startswith("github.com/")
    if local:
        remote = f"https://{body}"
    elif divided:
        scheme = scheme.lower()
        if scheme == "file" and allow_file:
            remote = f"file://{rest}"
        elif scheme in _SCHEMES:
            if scheme in ("http", "https") and not body.endswith(".git"):
                return None
            remote = f"{scheme}://{rest}"
        else:
            return None
        if not rest.strip("/"):
            raise UsageError(f"git URL '{text}'", "it names no repository")
    elif _is_scp(body):
        remote = body
    else:
        return None
    ref, _, subdir = fragment.partition(":")
    found = Repository(remote, ref, subdir, maybe_local=local)
    return check(_with_query(found, query, text) if asked else found, text)


def masked(text: str) -> str:
    """The text with `***` for the users and passwords of the URLs in it: messages end up in the logs of a CI."""
    before, *others = text.split("://")
    done = [before]
    for rest in others:
        end = next((at for at, char in enumerate(rest) if char in "/\"'" or char.isspace()), len(rest))
        login, at, host = rest[:end].rpartition("@")
        secret = ":" in login or done[-1].lower().endswith(("http", "https"))
        done.append(f"***@{host}{rest[end:]}" if at and secret else rest)
    return "://".join(done)


def check(repository: Repository, text: str = "") -> Repository:
    """The same repository, if nothing of it could be taken for an option or a path that leads out of it."""
    text = text or masked(repository.remote)
    if any(char < " " or char == "\x7f" for char in text + repository.remote + repository.ref + repository.subdir):
        raise UsageError(f"git URL {text!r}", "control characters in it")
    authority = (repository.remote.partition("://")[2] or repository.remote).partition("/")[0]
    host = authority.rpartition("@")[2]  # of the authority alone: a path may have an "@" too
    if repository.remote.startswith("-") or host.startswith("-"):  # ssh takes such a host for an option
        raise UsageError(f"git URL '{text}'", "its host begins with '-'")
    ref = repository.ref
    if (
        ref.startswith("-")
        or any(char in ref for char in " ~^:?*[\\")
        or ".." in ref
        or "@{" in ref
        or ref.endswith((".lock", "/"))
    ):
        raise UsageError(f"git URL '{text}'", f"'{ref}' is no name of a branch, tag or commit")
    if ".." in repository.subdir.split("/"):
        raise UsageError(f"git URL '{text}'", "'..' in its directory")
    if repository.commit and not (_HEX.issuperset(repository.commit) and 7 <= len(repository.commit) <= 64):
        raise UsageError(f"git URL '{text}'", f"'{repository.commit}' is no commit: 7 to 64 hexadecimal digits")
    return repository


def _is_scp(text: str) -> bool:
    """user@host:path, as git(1) takes it."""
    user, at, rest = text.partition("@")
    host, colon, path = rest.partition(":")
    return bool(at and colon and user and host and path and _USER.issuperset(user) and _HOST.issuperset(host))


def _with_query(found: Repository, query: str, text: str) -> Repository:
    from urllib.parse import unquote_plus

    values: dict[str, str] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        key, value = unquote_plus(key), unquote_plus(value)
        if key in values:
            raise UsageError(f"git URL '{text}'", f"'{key}' twice")
        values[key] = value
    wanted = {"ref": found.ref, "subdir": found.subdir}
    for key, value in values.items():
        if key in ("keep-git-dir", "submodules"):
            if value.lower() not in _TRUE:
                raise UsageError(f"git URL '{text}'", f"{key} is true or false, not '{value}'")
            flag = _TRUE[value.lower()]
            found = found.replace(keep_git=flag) if key == "keep-git-dir" else found.replace(submodules=flag)
            continue
        if not value:
            raise UsageError(f"git URL '{text}'", f"'{key}' has no value")
        if key in ("commit", "checksum"):
            found = found.replace(commit=value)
            continue
        if key in ("tag", "branch"):
            prefix = "refs/tags/" if key == "tag" else "refs/heads/"
            key, value = "ref", value if value.startswith(prefix) else prefix + value
        if key not in wanted:
            raise UsageError(f"git URL '{text}'", f"unknown '{key}' behind the question mark", hint=_HINT)
        if wanted[key] not in ("", value):
            raise UsageError(f"git URL '{text}'", f"'{wanted[key]}' and '{value}' contradict one another")
        wanted[key] = value
    return found.replace(**wanted)


_HINT = "ref, tag, branch, subdir, commit, keep-git-dir and submodules are known"
