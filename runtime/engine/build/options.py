# SPDX-License-Identifier: Apache-2.0
"""BuildOptions: everything that `pyrun build` can say, typed and free of the command line; and its values' parsers.

This is also the Python API: `BuildOptions(".", tags=("flask-app",), target="test")`. The parsers take one flag's text
in docker's forms (`type=local,dest=out`) and raise ValueError with the reason.
"""

from __future__ import annotations

import os

from pyrun.runtime.engine.humanize import digits
from pyrun.runtime.engine.mount_options import split_csv
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrun.runtime.engine.options import Ulimit

AUTO, PLAIN, TTY, QUIET, RAWJSON = "auto", "plain", "tty", "quiet", "rawjson"
PROGRESS = (AUTO, PLAIN, TTY, QUIET, RAWJSON)
ENTITLEMENTS = ("network.host", "security.insecure")
INLINE, LOCAL, REGISTRY = "inline", "local", "registry"


class Output(Record):
    """One --output: what becomes of the result besides (or, for `local` and `tar`, instead of) an image of the store.

    kind: local, tar, oci, docker, image. dest: a path, "-" for standard output, "" for none. names: of type=image,
    where they come on top of the tags.
    """

    kind: str
    dest: str = ""
    names: tuple[str, ...] = ()
    push: bool = False
    compression: str = ""  # "" is the builder's choice
    rewrite_timestamp: bool = False
    annotations: tuple[tuple[str, str], ...] = ()
    tar: bool = True  # of oci and docker: an archive, or a directory


class Secret(Record):
    """One --secret: a file of this machine, or an environment variable of the caller's."""

    id: str
    path: str = ""
    env: str = ""


class Agent(Record):
    """One --ssh: an agent's socket, or private keys."""

    id: str
    paths: tuple[str, ...] = ()  # () is $SSH_AUTH_SOCK


class CachePlace(Record):
    """One --cache-from or --cache-to: inline, local (a directory) or registry (a reference)."""

    kind: str
    where: str = ""
    everything: bool = False  # --cache-to mode=max: the steps of all stages, not only of what became the image


class BuildOptions(Record):
    """One build as asked for; every default but the context's means "not said". Sizes are bytes."""

    context: str  # a directory, "-" (standard input), the URL of a tar, a Dockerfile or a git repository
    file: str = ""  # the Dockerfile: relative to the caller's directory, "-" for standard input
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    platform: str = ""  # "linux/arm64"; "" is this machine's

    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()  # names of stages
    pull: bool = False
    cache_from: tuple[CachePlace, ...] = ()
    cache_to: tuple[CachePlace, ...] = ()

    build_contexts: tuple[tuple[str, str], ...] = ()  # name -> directory, docker-image://…, oci-layout://…, URL
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[Agent, ...] = ()
    allow: tuple[str, ...] = ()  # of ENTITLEMENTS
    network: str = "default"  # default | none | host
    add_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    memory: int | None = None
    memory_swap: int | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""

    outputs: tuple[Output, ...] = ()
    iidfile: str = ""
    metadata_file: str = ""
    debug_shell: bool = False
    lint: bool = False  # say what BuildKit's rules find in the Dockerfile
    epoch: int | None = None  # seconds since 1970: SOURCE_DATE_EPOCH


# ── parsers of single values ─────────────────────────────────────────────────────────────────────────────────────


def _fields(text: str, known: Iterable[str], what: str) -> dict[str, str]:
    """The key=value items of a comma-separated text (CSV quoting). A key that is not `known` raises ValueError."""
    found: dict[str, str] = {}
    known = tuple(known)
    for item in split_csv(text):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not key.startswith("annotation."):
            key = key.lower()
        if key not in known and not (what == "output" and key.startswith("annotation.")):
            from pyrun.runtime.oci.nearest import nearest

            meant = nearest(key, known)
            raise ValueError(f"unknown key '{key}'" + (f"; did you mean {meant}?" if meant else ""))
        if not equals:
            raise ValueError(f"'{key}' needs a value: {key}=…")
        found[key] = value
    return found


def boolean(text: str) -> bool:
    """Go's spelling of true and false."""
    if text not in ("1", "t", "true", "True", "TRUE", "0", "f", "false", "False", "FALSE"):
        raise ValueError(f"'{text}' is neither true nor false")
    return text[0] in "1tT"


_OUTPUT_KEYS = (
    *("type", "dest", "name", "push", "tar", "compression", "rewrite-timestamp", "oci-mediatypes"),
    *("force-compression", "compression-level", "unpack", "store", "buildinfo", "name-canonical"),
)


def parse_output(text: str) -> Output:
    """--output: a directory, "-" for a tar on standard output, or type=local|tar|oci|docker|image,dest=…,…"""
    if "=" not in text:
        return Output("tar", "-") if text == "-" else Output("local", text)
    fields = _fields(text, _OUTPUT_KEYS, "output")
    kind, dest = fields.get("type", ""), fields.get("dest", "")
    if kind == "registry":
        kind, fields["push"] = "image", "true"
    if kind not in ("local", "tar", "oci", "docker", "image"):
        raise ValueError(f"unknown type '{kind}': one of local, tar, oci, docker, image, registry")
    if kind == "local" and not dest:
        raise ValueError("type=local needs dest=DIRECTORY")
    if kind in ("tar", "oci") and not dest:
        dest = "-"
    archive = boolean(fields.get("tar", "true"))
    if not archive and (dest in ("", "-") or kind not in ("oci", "docker")):
        raise ValueError("tar=false is for type=oci and type=docker with dest=DIRECTORY")
    compression = fields.get("compression", "")
    if compression not in ("", "gzip", "zstd", "uncompressed"):
        raise ValueError(f"unknown compression '{compression}': one of gzip, zstd, uncompressed")
    for key in ("oci-mediatypes", "force-compression", "unpack", "store", "buildinfo", "name-canonical"):
        boolean(fields.get(key, "true"))
    if not boolean(fields.get("oci-mediatypes", "true")):
        raise ValueError("images are built with OCI media types; docker reads them since version 1.10")
    names = tuple(name for name in fields.get("name", "").split(",") if name)
    push = boolean(fields.get("push", "false"))
    if push and kind != "image":
        raise ValueError("push=true is for type=image")
    notes = tuple(
        (key.partition(".")[2], value) for key, value in fields.items() if key.startswith("annotation.") and key[11:]
    )
    return Output(
        kind, dest, names, push, compression, boolean(fields.get("rewrite-timestamp", "false")), notes, archive
    )


def parse_secret(text: str) -> Secret:
    """--secret id=NAME[,src=FILE][,env=VARIABLE]; with neither: the variable NAME, else the file NAME."""
    fields = _fields(text, ("type", "id", "src", "source", "env"), "secret")
    name = fields.get("id", "")
    kind = fields.get("type", "")
    source, variable = fields.get("src", fields.get("source", "")), fields.get("env", "")
    if kind not in ("", "file", "env"):
        raise ValueError(f"unknown type '{kind}': file or env")
    if not name:
        name = os.path.basename(source) or variable
    if not name:
        raise ValueError("it needs an id: id=NAME,src=FILE")
    if kind == "env" and not variable:
        variable, source = source or name, ""
    if not (variable or source):
        if name in os.environ and kind != "file":
            variable = name
        else:
            source = name
    if source and variable:
        raise ValueError("src and env exclude each other")
    return Secret(name, os.path.abspath(os.path.expanduser(source)) if source else "", variable)


def parse_ssh(text: str) -> Agent:
    """--ssh default, NAME, or NAME=SOCKET|KEY[,KEY…]"""
    name, _, paths = text.partition("=")
    if not name:
        raise ValueError("it needs a name, such as default")
    return Agent(name, tuple(os.path.abspath(os.path.expanduser(path)) for path in paths.split(",") if path))


def parse_cache_from(text: str) -> CachePlace:
    """--cache-from type=local,src=DIRECTORY, type=registry,ref=NAME, or just NAME."""
    if "=" not in text:
        return CachePlace(REGISTRY, text)
    return _place(_fields(text, ("type", "src", "ref", "digest", "tag"), "cache"), "src")


def parse_cache_to(text: str) -> CachePlace:
    """--cache-to type=inline, type=local,dest=DIRECTORY, or type=registry,ref=NAME; mode=min|max."""
    if text == INLINE:
        return CachePlace(INLINE)
    if "=" not in text:
        return CachePlace(REGISTRY, text)
    known = ("type", "dest", "ref", "mode", "ignore-error", "compression", "oci-mediatypes", "image-manifest", "tag")
    return _place(_fields(text, known, "cache"), "dest")


def _place(fields: dict[str, str], path_key: str) -> CachePlace:
    kind, mode = fields.get("type", ""), fields.get("mode", "min")
    if mode not in ("min", "max"):
        raise ValueError(f"unknown mode '{mode}': min or max")
    if kind == INLINE and path_key == "dest":
        return CachePlace(INLINE)
    if kind == LOCAL:
        if not fields.get(path_key):
            raise ValueError(f"type=local needs {path_key}=DIRECTORY")
        return CachePlace(LOCAL, os.path.abspath(fields[path_key]), mode == "max")
    if kind == REGISTRY:
        if not fields.get("ref"):
            raise ValueError("type=registry needs ref=NAME")
        return CachePlace(REGISTRY, fields["ref"], mode == "max")
    if kind in ("gha", "s3", "azblob"):
        raise ValueError(f"type={kind} is a cloud's cache, which pyrun does not speak; use type=registry or type=local")
    raise ValueError(f"unknown type '{kind}': one of registry, local" + (", inline" if path_key == "dest" else ""))


def parse_build_arg(text: str) -> tuple[str, str | None]:
    """--build-arg NAME=value, or NAME for the value in this environment (None: it has none there)."""
    name, equals, value = text.partition("=")
    if not name:
        raise ValueError("it needs a name before '='")
    return name, value if equals else os.environ.get(name)


def parse_build_context(text: str) -> tuple[str, str]:
    """--build-context NAME=PATH|URL; the path is made absolute."""
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise ValueError("expected NAME=PATH or NAME=URL")
    if "://" not in value and not value.startswith("git@"):
        value = os.path.abspath(value)
    return name.lower(), value


def parse_allow(text: str) -> tuple[str, ...]:
    """--allow network.host, security.insecure (several with commas)."""
    for name in text.split(","):
        if name not in ENTITLEMENTS:
            raise ValueError(f"unknown entitlement '{name}': one of {', '.join(ENTITLEMENTS)}")
    return tuple(text.split(","))


def parse_epoch(text: str) -> int:
    """SOURCE_DATE_EPOCH: seconds since 1970."""
    try:
        return digits(text)
    except ValueError:
        raise ValueError("write seconds since 1970") from None
