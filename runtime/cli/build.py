# SPDX-License-Identifier: Apache-2.0
"""pyrun build: an image out of a Dockerfile. docker buildx's flags, and those of docker's older builder."""

from __future__ import annotations

import os
import sys

from pyrun.runtime.cli import values
from pyrun.runtime.cli.context import lines_for, render
from pyrun.runtime.cli.flags import LIST, SWITCH, VALUE, Args, Command, Flag
from pyrun.runtime.engine.build import options as o
from pyrun.runtime.engine.humanize import digits, parse_size, signed
from pyrun.runtime.errors import EXIT_FAULT, PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.cli.context import Context
    from pyrun.runtime.engine.build.progress import Progress

WHAT, CACHE, RESULT, STEPS, LOOK = "What is built", "Cache", "Result", "What RUN may use", "Look"


def run(args: Args, ctx: Context) -> int:
    """Builds; prints progress on stderr and, with -q, the image's id on stdout."""
    if not args.arguments:
        if not args.on("debug-shell"):
            raise UsageError("build", "needs a context", hint="pyrun build . builds the directory you are in")
        return _shell(ctx)
    options = build_options(args)
    if options.debug_shell and not os.isatty(0):
        raise UsageError("build --debug-shell", "standard input is not a terminal")
    if args.on("check") or args.text("call") == "check":
        return _check(args, ctx, options)
    if args.on("explain"):
        return _explain(ctx, options)
    return _build(args, ctx, options)


def _build(args: Args, ctx: Context, options: o.BuildOptions) -> int:
    from pyrun.runtime.engine.build import failure
    from pyrun.runtime.engine.build.solve import build

    progress = _progress(args, ctx)
    try:
        built = build(ctx.paths, options, progress, stdin=sys.stdin.buffer, link=ctx.link)
    except (SystemExit, KeyboardInterrupt):  # a signal: ^C, SIGTERM, a closed terminal
        try:
            progress.close()
            ctx.stderr.write("" if _machine(args) else "pyrun: build interrupted\n")
        except OSError:
            pass  # the terminal is gone
        raise
    except (PyrunError, OSError) as error:
        progress.close()
        if not _machine(args):
            ctx.stderr.writelines(lines_for(ctx.stderr, f"{line}\n") for line in failure.report(error))
        if options.debug_shell and isinstance(error, failure.StepFailed):
            render(error, ctx.stderr)
            return _shell(ctx)
        if isinstance(error, PyrunError) and error.code == EXIT_FAULT:
            error.code = 1  # docker's: the command line was right, the build was not
        raise
    progress.close()
    if built.warnings and not _machine(args):
        count = len(built.warnings)
        ctx.stderr.write(f"{count} warning{'s' if count != 1 else ''} found (pyrun build --check shows the lines):\n")
        ctx.stderr.writelines(lines_for(ctx.stderr, f" - {text}\n") for text in built.warnings)
    if args.on("quiet") and built.image_id:
        ctx.print(built.image_id)
    return 0


def _machine(args: Args) -> bool:
    return args.text("progress") == o.RAWJSON


def _progress(args: Args, ctx: Context) -> Progress:
    """The progress that was asked for; auto is a live view on a terminal, plain lines elsewhere."""
    from pyrun.runtime.engine.build import progress as p

    mode = args.text("progress") or os.environ.get("BUILDKIT_PROGRESS", "") or o.AUTO
    if args.on("quiet") or mode == o.QUIET:
        return p.Progress()
    if mode == o.RAWJSON:
        return p.RawJson(ctx.stderr.write)
    terminal = os.isatty(2) and os.environ.get("TERM") != "dumb"
    if mode == o.TTY and not terminal:
        raise UsageError("--progress tty", "standard error is not a terminal", hint="--progress plain goes anywhere")
    if mode in (o.AUTO, o.TTY) and terminal:
        from pyrun.runtime.engine.build.live import Live

        return Live(ctx.stderr)
    return p.Plain(lambda text: ctx.stderr.write(lines_for(ctx.stderr, text)))


def _shell(ctx: Context) -> int:
    """--debug-shell: a shell in the state that the last failed step left, as `builder debug`."""
    from pyrun.runtime.cli import builder

    return builder.shell(ctx, "build --debug-shell")


def _check(args: Args, ctx: Context, options: o.BuildOptions) -> int:
    """--check: what BuildKit's rules find in the Dockerfile, and unused arguments. 1 if there is anything."""
    from pyrun.runtime.engine.build import solve
    from pyrun.runtime.engine.build.progress import Progress
    from pyrun.runtime.engine.build.work import Work

    with Work(ctx.paths, options, Progress()) as work:
        graph = solve.load(work, sys.stdin.buffer)
        findings = solve.findings(graph)
        unused = solve.unused_arguments(graph)
        path = graph.file.path
        lines = graph.file.lines
    if not findings and not unused:
        ctx.print("Check complete, no warnings found.")
        return 0
    from pyrun.runtime.engine.build.failure import excerpt

    count = len(findings) + len(unused)
    ctx.print(f"Check complete, {count} warning{'s have' if count != 1 else ' has'} been found!")
    for finding in findings:
        shown = excerpt(lines, finding.line, finding.line) if finding.line else ()
        text = ("", f"WARNING: {finding.rule}", finding.message, f"{path}:{finding.line}", "-" * 20, *shown, "-" * 20)
        ctx.print(*(lines_for(ctx.stdout, line) for line in text))
    for remark in unused:
        ctx.print("", lines_for(ctx.stdout, f"WARNING: {remark}"))
    return 1


def _explain(ctx: Context, options: o.BuildOptions) -> int:
    """--explain: every step of every stage that is needed, and whether it is cached; nothing is run."""
    from pyrun.runtime.engine.build import solve
    from pyrun.runtime.engine.build.progress import Progress
    from pyrun.runtime.engine.build.work import Work

    solve.check_given(options)
    with Work(ctx.paths, options, Progress()) as work:
        planned = solve.explain(solve.load(work, sys.stdin.buffer))
    stage = None
    for line in planned:
        if line.stage != stage:
            stage = line.stage
            if stage:
                ctx.print(f"stage {stage}")
        ctx.print(lines_for(ctx.stdout, f"{line.line:>4}  {line.fate:<8} {line.text}"))
    return 0


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────

# flags whose value is the field's of the same name
SAME = (
    "file", "target", "no-cache", "pull", "network", "shm-size", "cgroup-parent", "memory", "memory-swap", "cpu-shares",
    "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems", "iidfile", "metadata-file", "debug-shell", "platform",
)  # fmt: skip
TUPLES = {
    "tag": "tags", "label": "labels", "annotation": "annotations", "no-cache-filter": "no_cache_filter",
    "cache-from": "cache_from", "cache-to": "cache_to", "build-context": "build_contexts", "secret": "secrets",
    "ssh": "ssh", "add-host": "add_hosts",
}  # fmt: skip


def build_options(args: Args) -> o.BuildOptions:
    """The command line as BuildOptions. Raises UsageError for flags that contradict each other."""
    fields: dict[str, Any] = {"context": args.arguments[0]}
    if not args.arguments[0]:
        raise UsageError("build", "the context's name is empty", hint="pyrun build . builds the directory you are in")
    for name in SAME:
        if args.given(name) and args.value(name) is not None:
            fields[name.replace("-", "_")] = args.value(name)
    for name, field in TUPLES.items():
        if args.given(name):
            fields[field] = tuple(args.many(name))
    fields["allow"] = tuple(name for names in args.many("allow") for name in names)
    if fields.get("network") == "host":
        fields["allow"] = (*fields["allow"], "network.host")
    given = {name: value for name, value in args.many("build-arg") if value is not None}
    fields["build_args"] = tuple(given.items())
    fields["ulimits"] = tuple({limit.name: limit for limit in args.many("ulimit")}.values())
    fields["outputs"] = _outputs(args)
    fields["lint"] = not args.on("quiet")
    epoch = given.get("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", ""))
    if epoch:
        try:
            fields["epoch"] = o.parse_epoch(epoch)
        except ValueError as error:
            raise UsageError(f"SOURCE_DATE_EPOCH '{epoch}'", str(error)) from None
    options = o.BuildOptions(**fields)
    _rules(args, options)
    return options


def _outputs(args: Args) -> tuple[o.Output, ...]:
    outputs = list(args.many("output"))
    if args.on("push"):
        outputs.append(o.Output("image", push=True))
    if args.on("load") and outputs:
        outputs.append(o.Output("docker"))
    return tuple(dict.fromkeys(outputs))


def _rules(args: Args, options: o.BuildOptions) -> None:
    from pyrun.runtime.engine.build.output import tag_of

    for tag in options.tags:
        tag_of(tag)
    if options.context == "-" and options.file == "-":
        raise UsageError("build -f - -", "the Dockerfile and the context cannot both come from standard input")
    to_stdout = [output for output in options.outputs if output.dest == "-"]
    if len(to_stdout) > 1 or (to_stdout and args.on("quiet")):
        raise UsageError("--output", "only one thing can go to standard output", hint="give dest=FILE")
    if to_stdout and os.isatty(1):
        raise UsageError("--output -", "standard output is a terminal", hint="redirect it, or give dest=FILE")


def _refused(*names: str, why: str, kind: str = VALUE) -> tuple[Flag, ...]:
    return tuple(Flag(name, kind=kind, refused=why) for name in names)


def _attestation(text: str) -> str:
    """--provenance and --sbom: only "false" can be had."""
    if text not in ("false", "0", "disabled=true"):
        raise ValueError("pyrun does not write attestations; leave it out, or say false")
    return text


def _network(text: str) -> str:
    if text not in ("default", "none", "host"):
        raise ValueError("it must be one of default, none, host")
    return text


def _isolation(text: str) -> str:
    if text not in ("", "default"):
        raise ValueError("it is for Windows; leave it out, or say default")
    return text


def _platform(text: str) -> str:
    if "," in text:
        raise ValueError("one platform at a time: build each, then pyrun push them under tags of their own")
    return text


FLAGS = (
    Flag("file", "f", help="the Dockerfile (CONTEXT/Dockerfile); - is standard input", metavar="FILE", group=WHAT),
    Flag("target", help="build this stage", metavar="STAGE", group=WHAT),
    Flag(
        "build-arg", kind=LIST, help="a value for an ARG", metavar="NAME[=VALUE]", parse=o.parse_build_arg, group=WHAT
    ),
    Flag(
        "build-context",
        kind=LIST,
        help="a further context: a directory, docker-image://…, oci-layout://…, a URL",
        metavar="NAME=PATH",
        parse=o.parse_build_context,
        group=WHAT,
    ),
    Flag("platform", help="build for this platform", metavar="OS/ARCH", parse=_platform, group=WHAT),
    Flag("tag", "t", LIST, "a name for the image", "NAME[:TAG]", group=RESULT),
    Flag("label", kind=LIST, help="a label of the image", metavar="NAME=VALUE", parse=values.pair, group=RESULT),
    Flag("annotation", kind=LIST, help="of the manifest", metavar="NAME=VALUE", parse=values.assignment, group=RESULT),
    Flag(
        "output",
        "o",
        LIST,
        "a directory, - for a tar, or type=local|tar|oci|docker|image,dest=…,push=…",
        "DEST",
        parse=o.parse_output,
        group=RESULT,
    ),
    Flag("push", kind=SWITCH, help="push the image under its names", group=RESULT),
    Flag("load", kind=SWITCH, help="keep the image in the store, beside --output", group=RESULT),
    Flag("iidfile", help="write the image's id to a file", metavar="FILE", group=RESULT),
    Flag("metadata-file", help="write what was built to a file, as JSON", metavar="FILE", group=RESULT),
    Flag("quiet", "q", SWITCH, "no progress; the image's id on standard output", group=RESULT),
    Flag(
        "progress",
        help="auto, plain, tty, quiet, rawjson (auto)",
        metavar="HOW",
        parse=values.one_of(*o.PROGRESS),
        group=RESULT,
    ),
    Flag("no-cache", kind=SWITCH, help="run every step", group=CACHE),
    Flag("no-cache-filter", kind=LIST, help="run every step of this stage", metavar="STAGE", group=CACHE, parse=str),
    Flag("pull", kind=SWITCH, help="look for newer base images in their registry", group=CACHE),
    Flag(
        "cache-from",
        kind=LIST,
        help="also use steps of type=local,src=DIR or type=registry,ref=NAME",
        metavar="PLACE",
        parse=o.parse_cache_from,
        group=CACHE,
    ),
    Flag(
        "cache-to",
        kind=LIST,
        help="write steps to type=local,dest=DIR, type=registry,ref=NAME or type=inline",
        metavar="PLACE",
        parse=o.parse_cache_to,
        group=CACHE,
    ),
    Flag(
        "secret",
        kind=LIST,
        help="for RUN --mount=type=secret",
        metavar="id=NAME,src=FILE|env=NAME",
        parse=o.parse_secret,
        group=STEPS,
    ),
    Flag(
        "ssh",
        kind=LIST,
        help="an agent or keys for RUN --mount=type=ssh",
        metavar="default|NAME[=SOCKET|KEY]",
        parse=o.parse_ssh,
        group=STEPS,
    ),
    Flag("allow", kind=LIST, help="network.host, security.insecure", metavar="NAME", parse=o.parse_allow, group=STEPS),
    Flag("network", help="default, none, host", metavar="MODE", parse=_network, group=STEPS),
    Flag(
        "add-host", kind=LIST, help="a line of /etc/hosts", metavar="NAME:ADDRESS", parse=values.add_host, group=STEPS
    ),
    Flag("shm-size", help="of /dev/shm", metavar="SIZE", parse=values.positive_size, group=STEPS),
    Flag("ulimit", kind=LIST, help="a resource limit", metavar="NAME=SOFT[:HARD]", parse=values.ulimit, group=STEPS),
    Flag("cgroup-parent", help="the cgroup to put RUN below", metavar="PATH", group=STEPS),
    Flag("memory", "m", help="memory of a RUN", metavar="SIZE", parse=parse_size, group=STEPS),
    Flag("memory-swap", help="memory and swap", metavar="SIZE", parse=values.size_or_unlimited, group=STEPS),
    Flag("cpu-shares", "c", help="relative weight", metavar="N", parse=values.between(2, 262144), group=STEPS),
    Flag("cpu-period", help="length of a period", metavar="MICROSECONDS", parse=digits, group=STEPS),
    Flag("cpu-quota", help="time in each period", metavar="MICROSECONDS", parse=signed, group=STEPS),
    Flag("cpuset-cpus", help="processors, such as 0-3,5", metavar="LIST", parse=values.cpu_list, group=STEPS),
    Flag("cpuset-mems", help="memory nodes", metavar="LIST", parse=values.cpu_list, group=STEPS),
    Flag("check", kind=SWITCH, help="check the Dockerfile; build nothing", group=LOOK),
    Flag("call", help="build or check", metavar="METHOD", parse=values.one_of("build", "check"), group=LOOK),
    Flag("explain", kind=SWITCH, help="print stages and steps, cached or not; run nothing", group=LOOK),
    Flag("debug-shell", kind=SWITCH, help="open a shell where a RUN failed, or failed last", group=LOOK),
    # docker's flags that mean nothing here, or that pyrun does not have
    Flag("provenance", hidden=True, parse=_attestation),
    Flag("sbom", hidden=True, parse=_attestation),
    Flag("builder", hidden=True),
    Flag("isolation", hidden=True, parse=_isolation),
    Flag("compress", kind=SWITCH, hidden=True),
    Flag("rm", kind=SWITCH, hidden=True, default=True),
    Flag("force-rm", kind=SWITCH, hidden=True),
    Flag("disable-content-trust", kind=SWITCH, hidden=True),
    *_refused("attest", why="pyrun does not write attestations"),
    *_refused("security-opt", why="write RUN --security=insecure and say --allow security.insecure"),
    *_refused("squash", why="FROM scratch and COPY --from=… / / makes one layer", kind=SWITCH),
    *_refused("policy", why="pyrun has no policy language"),
)

EXAMPLES = """\
Examples:
  pyrun build -t flask-app .                          the Dockerfile here, named flask-app
  pyrun build -f Dockerfile.test --target test .      another file, only as far as the stage "test"
  pyrun build -o out .                                the files of the result instead of an image
  pyrun build --debug-shell .                         a shell where a RUN fails
  pyrun build --explain .                             what would be run, and what is cached"""

BUILD = Command(
    "build", "CONTEXT", "Build an image from a Dockerfile", run, FLAGS, most=1, details=EXAMPLES,
    aliases=("image build", "builder build", "buildx build"),
)  # fmt: skip
