# SPDX-License-Identifier: Apache-2.0
"""What instructions mean: arguments, flags, stages, RUN --mount, expansion per instruction."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.rootfs.build import instructions as i
from pyrun.rootfs.build import quantities
from pyrun.rootfs.build.dockerfile import DockerfileError, parse
from pyrun.runtime.errors import UsageError

ENV = {"A": "a", "V": "1.2", "PATHS": "/x /y", "P": "80"}


def step(text: str) -> Any:
    """The one instruction in `text`."""
    return i.one(text)


def fields(text: str) -> dict[str, Any]:
    """Its fields but the place."""
    found: dict[str, Any] = step(text).asdict()
    del found["at"]
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM alpine", {"image": "alpine", "platform": "", "alias": ""}),
        ("FROM --platform=$BUILDPLATFORM a:$V as Base-1.x_y", {
            "image": "a:$V", "platform": "$BUILDPLATFORM", "alias": "base-1.x_y"}),
        ("ARG a b= c=d\\ e", {"pairs": (("a", None), ("b", ""), ("c", "d\\ e"))}),
        ("ENV a=b c='d e'", {"pairs": (("a", "b"), ("c", "'d e'")), "legacy": False}),
        ("ENV a b  c=d ", {"pairs": (("a", "b  c=d"),), "legacy": True}),
        ("LABEL a.b=c", {"pairs": (("a.b", "c"),), "legacy": False}),
        ("CMD a  b", {"args": ("a  b",), "shell": True}),
        ('CMD ["a", "b"]', {"args": ("a", "b"), "shell": False}),
        ("CMD []", {"args": (), "shell": False}),
        ('ENTRYPOINT ["a"]', {"args": ("a",), "shell": False}),
        ('SHELL ["/bin/bash", "-c"]', {"args": ("/bin/bash", "-c")}),
        ("EXPOSE 80 443/tcp $P", {"ports": ("80", "443/tcp", "$P")}),
        ("USER a:b", {"user": "a:b"}),
        ("WORKDIR /a b", {"path": "/a b"}),
        ("VOLUME /a /b", {"paths": ("/a", "/b")}),
        ('VOLUME ["/a b"]', {"paths": ("/a b",)}),
        ("STOPSIGNAL SIGINT", {"signal": "SIGINT"}),
        ("MAINTAINER me <a@b>", {"name": "me <a@b>"}),
    ],
)  # fmt: skip
def test_arguments(text: str, expected: dict[str, Any]) -> None:
    """Each instruction's own; nothing is expanded yet."""
    assert fields(text) == expected


def test_run() -> None:
    """All flags; mounts stay as they are written."""
    found = step("RUN --mount=type=cache,target=$A --mount=target=/b --network=none --security=insecure --device=x a b")
    assert found.mounts == ("type=cache,target=$A", "target=/b")
    assert (found.network, found.security, found.devices, found.text) == ("none", "insecure", ("x",), "a b")
    assert not step('RUN ["a", "b"]').shell


@pytest.mark.parametrize(
    ("text", "args", "shell", "file"),
    [
        ("RUN a", ("a",), True, None),
        ('RUN ["a", "b"]', ("a", "b"), False, None),
        ("RUN <<EOF\na\nb\nEOF", ("a\nb\n",), True, None),
        ("RUN <<-EOF\n\ta\n\t\tb\n\tEOF", ("a\nb\n",), True, None),
        ("RUN <<EOF\n#!/usr/bin/python\nx\nEOF", ("/dev/pipes/EOF",), False, ("EOF", "#!/usr/bin/python\nx\n")),
        ("RUN cat <<EOF > /x\na\nEOF", ("cat <<EOF > /x\na\nEOF",), True, None),
        ("RUN cat <<-A <<'B'\n\ta\nA\nb\nB", ("cat <<-A <<'B'\n\ta\nA\nb\nB",), True, None),
        ("RUN <<A <<B\n1\nA\n2\nB", ("<<A <<B\n1\nA\n2\nB",), True, None),
    ],
)
def test_what_a_run_starts(text: str, args: tuple[str, ...], shell: bool, file: tuple[str, str] | None) -> None:
    """A heredoc alone is a script, for the shell or by its #!; others are the shell's own business."""
    assert i.script(step(text)) == i.Script(args, shell, file)


def test_copy_and_add() -> None:
    """Every flag; sources and heredocs apart."""
    found = step("COPY --from=b --chown=1:2 --chmod=755 --link --parents --exclude=*.a --exclude=b x y /z/")
    assert (found.sources, found.destination) == (("x", "y"), "/z/")
    assert (found.from_, found.chown, found.chmod, found.link, found.parents) == ("b", "1:2", "755", True, True)
    assert found.excludes == ("*.a", "b")
    added = step("ADD --keep-git-dir=true --checksum=sha256:00 --unpack=false --link=false https://x/y /z")
    assert (added.keep_git_dir, added.checksum, added.unpack, added.link) == (True, "sha256:00", False, False)
    assert step("ADD a b").unpack is None
    assert step('COPY ["a b", "c/"]').sources == ("a b",)
    written = step("COPY <<a.txt x <<'b.txt' /d/\n$A\na.txt\n$A\nb.txt")
    assert written.sources == ("x",)
    assert [(doc.name, doc.content, doc.expand) for doc in written.heredocs] == [
        ("a.txt", "$A\n", True), ("b.txt", "$A\n", False)]  # fmt: skip


def test_healthcheck() -> None:
    """Durations are Go's; the shell form is CMD-SHELL."""
    found = step(
        "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=1.5h --start-interval=2s --retries=3 CMD a b"
    )
    assert found.test == ("CMD-SHELL", "a b")
    assert (found.interval_ns, found.timeout_ns) == (90 * 10**9, 500 * 10**6)
    assert (found.start_period_ns, found.start_interval_ns, found.retries) == (5400 * 10**9, 2 * 10**9, 3)
    assert step('HEALTHCHECK CMD ["a", "b"]').test == ("CMD", "a", "b")
    assert step("HEALTHCHECK none").config() == {"Test": ["NONE"]}
    assert step("HEALTHCHECK --interval=0s cmd a").config() == {"Test": ["CMD-SHELL", "a"]}


def test_onbuild() -> None:
    """The trigger is kept as text, and is itself checked."""
    found = step("ONBUILD COPY --from=x a b")
    assert found.trigger == "COPY --from=x a b"
    assert found.step.from_ == "x"
    again = step("ONBUILD RUN <<EOF\na\nEOF")
    assert again.trigger == "RUN <<EOF\na\nEOF"
    assert i.script(step(again.trigger)) == i.Script(("a\n",), True)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("FROM", "FROM needs an image", ""),
        ("FROM a b", "it takes an image, or an image AS a name", "FROM <image>"),
        ("FROM a TO b", "it takes an image", ""),
        ("FROM a AS 1b", "'1b' cannot be the name of a stage", "begins with a letter"),
        ("FROM a AS b/c", "'b/c' cannot be the name of a stage", ""),
        ("FROM --platfrom=x a", "FROM has no flag --platfrom", "did you mean --platform?"),
        ("RUN --from=x a", "RUN has no flag --from", "it is a flag of COPY"),
        ("CMD --x a", "CMD has no flag --x", "CMD has no flags"),
        ("COPY --zzzzz a b", "COPY has no flag --zzzzz", "COPY knows --chown"),
        ("COPY --from a b", "--from needs a value", "write --from=<value>"),
        ("COPY --from=a --from=b c d", "--from is given twice", ""),
        ("COPY --link=yes a b", "--link=yes is neither true nor false", ""),
        ("COPY a", "COPY needs sources and a destination", "write COPY a <destination>"),
        ("COPY", "COPY needs sources and a destination", ""),
        ("COPY a <<b\nx\nb", "the destination of COPY is a heredoc", ""),
        ('COPY <<"a b" /c\nx\na b', "a heredoc's name has blanks", ""),
        ("ARG", "ARG needs a name", ""),
        ("ARG =b", "the name is empty", "write ARG name=default"),
        ("ENV a", "ENV a: the value is missing", "write ENV a=<value>"),
        ("ENV a=b c", "'c' is not of the form name=value", "quotes around a value"),
        ("ENV =b", "the name is empty", ""),
        ("LABEL", "LABEL needs name=value", ""),
        ("RUN", "RUN needs a command", ""),
        ("RUN []", "RUN [] starts nothing", ""),
        ("CMD", "CMD needs a command", ""),
        ("RUN --network=hots x", "--network=hots is unknown", "did you mean host?"),
        ("RUN --security=safe x", "--security=safe is unknown", "known are sandbox, insecure"),
        ("RUN --mount=type=cach,target=/x y", "unknown type 'cach'", "did you mean cache?"),
        ("SHELL bash -c", "it is a JSON array", 'SHELL ["/bin/sh", "-c"]'),
        ("SHELL []", "it is a JSON array", ""),
        ("EXPOSE", "EXPOSE needs a port", ""),
        ("VOLUME []", "VOLUME needs a path", ""),
        ('VOLUME ["", "/a"]', "VOLUME needs a path", ""),
        ("USER", "USER needs a user", ""),
        ("HEALTHCHECK", "HEALTHCHECK needs CMD <command> or NONE", ""),
        ("HEALTHCHECK FOO", "it begins with CMD or NONE", ""),
        ("HEALTHCHECK CMD", "HEALTHCHECK CMD needs a command", ""),
        ("HEALTHCHECK CMD []", "HEALTHCHECK CMD needs a command", ""),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes nothing else", ""),
        ("HEALTHCHECK --interval=3 CMD x", "--interval=3: write a duration", ""),
        ("HEALTHCHECK --interval=-3s CMD x", "--interval=-3s: write a duration", ""),
        ("HEALTHCHECK --interval=1us CMD x", "--interval=1us: it must be at least 1ms", ""),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries=-1: write a number", ""),
        ("HEALTHCHECK --retries=٣ CMD x", "--retries=٣: write a number", ""),
        ("ONBUILD", "ONBUILD needs an instruction", ""),
        ("ONBUILD ONBUILD RUN x", "ONBUILD cannot be a trigger", ""),
        ("ONBUILD from x", "FROM cannot be a trigger", ""),
        ("ONBUILD RUNN x", "unknown instruction 'RUNN'", "did you mean RUN?"),
        ("ONBUILD COPY a", "COPY needs sources and a destination", ""),
    ],
)  # fmt: skip
def test_errors(text: str, message: str, hint: str) -> None:
    """Each says what is wrong and in which line, and if possible what was meant."""
    with pytest.raises(DockerfileError) as caught:
        i.stages(
            parse(f"ARG x\n{text}\nFROM a\n".encode() if text.startswith("FROM") else f"FROM a\n{text}\n".encode())
        )
    assert str(caught.value).startswith("Dockerfile:2: ")
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_stages() -> None:
    """ARGs before the first FROM, then stage by stage."""
    file = parse(b"ARG a=1\nARG b\nFROM x AS One\nRUN a\nCOPY a b\nFROM one\nFROM y as two\nCMD z\n")
    metas, stages = i.stages(file)
    assert [meta.pairs for meta in metas] == [(("a", "1"),), (("b", None),)]
    assert [(s.index, s.name, s.base.image, len(s.steps)) for s in stages] == [
        (0, "one", "x", 2), (1, "", "one", 0), (2, "two", "y", 1)]  # fmt: skip


def test_finding_a_stage() -> None:
    """By name without case, the last one of that name; by number; only those before, if so asked."""
    _, stages = i.stages(parse(b"FROM x AS a\nFROM y AS b\nFROM z AS a\nFROM w\n"))
    assert i.find_stage(stages, "A") is stages[2]
    assert i.find_stage(stages, "a", before=2) is stages[0]
    assert i.find_stage(stages, "1") is stages[1]
    assert i.find_stage(stages, "3") is stages[3]
    for name in ("c", "4", "-1", "", "b2", "٣", "1" * 5000):
        assert i.find_stage(stages, name) is None
    assert i.find_stage(stages, "b", before=1) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x\nFROM a\n", "Dockerfile:1: RUN before the first FROM"),
        ("ARG x\nENV a=b\n", "Dockerfile:2: ENV before the first FROM"),
        ("ARG x\n", "Dockerfile: there is no FROM in it"),
    ],
)
def test_what_stands_before_from(text: str, message: str) -> None:
    """ARG and nothing else."""
    with pytest.raises(DockerfileError) as caught:
        i.stages(parse(text.encode()))
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["", "# x", "RUN a\nRUN b"])
def test_one_is_one(text: str) -> None:
    """Neither none nor two."""
    with pytest.raises(DockerfileError):
        i.one(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ENV A=new B=$A $A='$A'", {"pairs": (("A", "new"), ("B", "a"), ("a", "$A"))}),
        ("LABEL $A=${V%.*}", {"pairs": (("a", "1"),)}),
        ("COPY --chown=$A --chmod=$V --exclude=$A --from=$A $A/x /$A", {
            "chown": "a", "chmod": "1.2", "excludes": ("$A",), "from_": "$A", "sources": ("a/x",),
            "destination": "/a"}),
        ("ADD --checksum=sha256:$A http://x/$V /", {"checksum": "sha256:a", "sources": ("http://x/1.2",)}),
        ("COPY <<$A <<'B' /x\n\"$A\" \\$A\n$A\n$A\nB", {}),
        ("WORKDIR /$A/\"b c\"", {"path": "/a/b c"}),
        ("USER ${U:-$A}", {"user": "a"}),
        ("VOLUME $PATHS /z", {"paths": ("/x /y", "/z")}),
        ("STOPSIGNAL ${S:-SIGINT}", {"signal": "SIGINT"}),
        ("FROM --platform=linux/$A x:$V", {"platform": "linux/a", "image": "x:1.2"}),
        ("RUN echo $A", {"args": ("echo $A",)}),
        ("CMD echo $A", {"args": ("echo $A",)}),
        ('ENTRYPOINT ["$A"]', {"args": ("$A",)}),
        ('SHELL ["$A"]', {"args": ("$A",)}),
        ("HEALTHCHECK CMD $A", {"test": ("CMD-SHELL", "$A")}),
        ("ONBUILD RUN $A", {"trigger": "RUN $A"}),
    ],
)  # fmt: skip
def test_which_words_are_expanded(text: str, expected: dict[str, Any]) -> None:
    """Every instruction has its own rule; one ENV sees the old values throughout."""
    found = i.expanded(step(text), ENV.get).asdict()
    assert {name: found[name] for name in expected} == expected


def test_heredocs_are_expanded_unless_quoted() -> None:
    """Quotes in them are text; \\$ keeps a variable."""
    found = i.expanded(step("COPY <<A <<'B' /x\n\"$A\" \\$A\nA\n$A\nB"), ENV.get)
    assert [doc.content for doc in found.heredocs] == ['"a" $A\n', "$A\n"]


def test_an_error_of_expansion_has_its_line() -> None:
    """With the file's name, and the variable's own message."""
    _, stages = i.stages(parse(b'FROM a\n\nENV x="${NEED:?set me}"\n', path="d/Dockerfile"))
    with pytest.raises(DockerfileError, match=r"d/Dockerfile:3: NEED: set me"):
        i.expanded(stages[0].steps[0], ENV.get)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ARG x=1 y=$x z", [("x", "1"), ("y", "1"), ("z", None)]),
        ("ARG V=2", [("V", "2")]),
        ("ARG G", [("G", "given")]),
        ("ARG G=default", [("G", "given")]),
        ("ARG I", [("I", "inherited")]),
        ("ARG I=own", [("I", "own")]),
        ("ARG I=own$I", [("I", "own")]),
        ("ARG E= F=${E:-$A}", [("E", ""), ("F", "a")]),
    ],
)
def test_values_of_args(text: str, expected: list[tuple[str, str | None]]) -> None:
    """--build-arg, then the default, then what was declared before FROM; each sees those before it."""
    assert list(i.resolve_args(step(text), ENV.get, {"G": "given"}, {"I": "inherited"})) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("EXPOSE 80", ("80/tcp",)),
        ("EXPOSE 80/TCP 53/udp 80/tcp", ("80/tcp", "53/udp")),
        ("EXPOSE 8000-8002/udp", ("8000/udp", "8001/udp", "8002/udp")),
        ("EXPOSE $P $TWO", ("80/tcp", "1/tcp", "2/tcp")),
        ("EXPOSE 80/", ("80/tcp",)),
        ("EXPOSE 127.0.0.1:8080:80 8443:443", ("80/tcp", "443/tcp")),
        ("EXPOSE 80-80", ("80/tcp",)),
        ("EXPOSE $UNSET 1", ("1/tcp",)),
    ],
)
def test_ports(text: str, expected: tuple[str, ...]) -> None:
    """Ranges and variables; an address or host port is ignored as BuildKit does (lint tells)."""
    assert i.exposed(step(text), {**ENV, "TWO": "1 2"}.get) == expected


@pytest.mark.parametrize("port", ["x", "80/icmp", "70000", "9-8", "-1", "1-", "８０", "/tcp", "1_0", "+80"])
def test_bad_ports(port: str) -> None:
    """One line with the word."""
    with pytest.raises(DockerfileError, match="EXPOSE"):
        i.exposed(step(f"EXPOSE {port}"), ENV.get)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", {"type": "bind", "target": "/x", "read_only": True}),
        ("type=bind,src=a,dst=/b,rw", {"source": "a", "target": "/b", "read_only": False}),
        ("type=bind,from=stage,destination=/b,readonly=false", {"from_": "stage", "read_only": False}),
        ("type=bind,target=/b,readwrite=false", {"read_only": True}),
        ("type=cache,target=/a/.c/", {"type": "cache", "id": "/a/.c", "read_only": False, "sharing": "shared"}),
        ("type=cache,id=x,target=/c,sharing=Locked,mode=0700,uid=1,gid=2,from=y,source=z,ro", {
            "id": "x", "sharing": "locked", "mode": 0o700, "uid": 1, "gid": 2, "from_": "y", "source": "z",
            "read_only": True}),
        ("type=tmpfs,target=/t,size=64m", {"type": "tmpfs", "size": 64 << 20, "read_only": False}),
        ("size=1g,target=/t,type=tmpfs", {"type": "tmpfs", "size": 1 << 30}),
        ("type=secret,id=a", {"id": "a", "required": False, "env": None, "target": ""}),
        ("type=secret,id=a,env=TOKEN,required", {"env": "TOKEN", "required": True}),
        ("type=secret,target=/x/key,mode=0400", {"id": "key", "target": "/x/key", "mode": 0o400}),
        ("type=secret,source=a,required=1", {"id": "a", "required": True}),
        ("type=ssh", {"id": "default", "target": ""}),
        ("type=ssh,id=x,target=/s,required=true,uid=3", {"id": "x", "target": "/s", "required": True, "uid": 3}),
        ('type=bind,"source=a,b",target=/x', {"source": "a,b"}),
        ('type=bind,"source=a\\""b",target=/x', {"source": 'a"b'}),
        ("TYPE=Cache,Target=/x", {"type": "cache", "target": "/x"}),
        ("type=$T,target=/$A,id=${V}", {"type": "cache", "target": "/a", "id": "1.2"}),
    ],
)  # fmt: skip
def test_mounts(text: str, expected: dict[str, Any]) -> None:
    """All types and keys of BuildKit's reference; values are expanded."""
    found = i.parse_mount(text, {**ENV, "T": "cache"}.get).asdict()
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("type=bnd,target=/x", "unknown type 'bnd'", "did you mean bind?"),
        ("type=volume,target=/x", "unknown type 'volume'", "known are bind, cache"),
        ("type=cache,traget=/x", "unknown key 'traget'", "did you mean target?"),
        ("type=cache,target", "'target' needs a value", "write target=…"),
        ("type=tmpfs,target=/x,id=a", "'id' is not for type=tmpfs", "it is for cache and secret and ssh"),
        ("type=bind,target=/x,size=3", "'size' is not for type=bind", "it is for tmpfs"),
        ("type=bind,target=/x,required", "'required' is not for type=bind", ""),
        ("type=bind,target=/x,uid=1", "'uid' is not for type=bind", ""),
        ("type=secret", "which secret is it", ""),
        ("type=secret,id=a,source=b", "source= and id= are the same", ""),
        ("type=secret,id=a,from=b", "'from' is not for type=secret", ""),
        ("type=secret,id=a,sharing=shared", "'sharing' is not for type=secret", ""),
        ("type=cache,target=/x,sharing=lockd", "sharing=lockd is not valid", "did you mean locked?"),
        ("type=cache,target=/x,mode=9", "mode=9 is not valid", "write a mode"),
        ("type=cache,target=/x,uid=-1", "uid=-1 is not valid", "write a number"),
        ("type=cache,target=/x,uid=4294967296", "uid=4294967296 is not valid", "write a number"),
        ("type=tmpfs,target=/x,size=x", "size=x is not valid", "write a size"),
        ("type=bind,target=/x,ro=maybe", "readonly=maybe is not valid", "write true or false"),
        ("from=$A,target=/x", "variables are not expanded in from=", "FROM $image AS name"),
        ('type=bind,"target=/x', "a double quote is not closed", ""),
        ('type=bind,ta"rget=/x', "a quote inside", ""),
        ("", "unknown key ''", ""),
    ],
)  # fmt: skip
def test_bad_mounts(text: str, message: str, hint: str) -> None:
    """Told when the file is read, before anything runs."""
    for lookup in (None, ENV.get):
        with pytest.raises(UsageError) as caught:
            i.parse_mount(text, lookup)
        assert message in str(caught.value)
        assert hint in caught.value.hint


def test_a_mount_that_needs_variables_is_checked_when_they_are_there() -> None:
    """Not before: what stands in a variable may be right."""
    text = "RUN --mount=type=$T,target=/x,sharing=$S --mount=type=secret,target=$X a"
    found = step(text)
    with pytest.raises(UsageError, match="unknown type 'nope'"):
        i.parse_mount(found.mounts[0], {"T": "nope", "S": "shared"}.get)
    with pytest.raises(UsageError, match="sharing=x"):
        i.parse_mount(found.mounts[0], {"T": "cache", "S": "x"}.get)
    assert i.parse_mount(found.mounts[1], {"X": "/a/b"}.get).id == "b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1s", 10**9), ("1h1m1s", 3661 * 10**9), ("1.5s", 1500 * 10**6), (".5s", 5 * 10**8), ("1.s", 10**9),
     ("100ms", 10**8), ("3us", 3000), ("3µs", 3000), ("7ns", 7), ("+1s", 10**9), ("0s", 0)],
)  # fmt: skip
def test_durations(text: str, expected: int) -> None:
    """Go's, in nanoseconds."""
    assert quantities.duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1", "s", "1x", "-1s", "1s2", ".s", "1..2s", "1_0s", "１s", " 1s", "1 s", "9" * 29 + "h", "+"]
)
def test_what_is_no_duration(text: str) -> None:
    """A number needs a unit."""
    with pytest.raises(ValueError, match=r"."):
        quantities.duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("64MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("10 k", 10240),
        ("7b", 7),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    """In bytes, powers of 1024."""
    assert quantities.size(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1_0", "1mm", "１", "i", "ib", "1 2m", "1ib"])
def test_what_is_no_size(text: str) -> None:
    """Anything else."""
    with pytest.raises(ValueError, match="write a size"):
        quantities.size(text)
