# SPDX-License-Identifier: Apache-2.0
"""What could be better in a Dockerfile: the checks of BuildKit's `build --check`, under the names it gives them.

`# check=skip=Rule,Rule;error=true` at the top of the file (or in a comment right above an instruction, for that one)
leaves out rules, "all" of them, or asks for the experimental ones; error=true makes a finding an error, which is up to
the caller. What needs the context or the base images is checked as far as `check()` is told about them.
"""

from __future__ import annotations

from pyrun.runtime.record import Record

from . import instructions, quantities
from . import steps as s
from .dockerfile import DockerfileError, directive
from .variables import variable_findings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .dockerfile import Dockerfile, Instruction
    from .ignore import Ignore
    from .variables import Environment

# What each rule is about, for the list of them.
RULES = {
    "ConsistentInstructionCasing": "the names of instructions are all in upper or all in lower case",
    "CopyIgnoredFile": "COPY and ADD name files that .dockerignore leaves in",
    "DuplicateStageName": "each stage has a name of its own",
    "ExposeInvalidFormat": "EXPOSE has no address and no port of the host",
    "ExposeProtoCasing": "protocols in EXPOSE are in lower case",
    "FromAsCasing": "AS is written in the same case as FROM",
    "FromPlatformFlagConstDisallowed": "FROM --platform is no fixed value",
    "InvalidBaseImagePlatform": "the base image is for the platform that is built",
    "InvalidDefaultArgInFrom": "FROM has a valid image when no build argument is given",
    "InvalidDefinitionDescription": "a comment above ARG and FROM begins with the name",
    "JSONArgsRecommended": "CMD and ENTRYPOINT are in exec form, so that signals arrive",
    "LegacyKeyValueFormat": "ENV and LABEL are written name=value",
    "MaintainerDeprecated": "LABEL org.opencontainers.image.authors instead of MAINTAINER",
    "MultipleInstructionsDisallowed": "CMD, ENTRYPOINT and HEALTHCHECK are there once in a stage",
    "NoEmptyContinuation": "no empty lines inside of an instruction",
    "RedundantTargetPlatform": "FROM --platform=$TARGETPLATFORM says nothing",
    "ReservedStageName": "no stage is called scratch or context",
    "SecretsUsedInArgOrEnv": "secrets come with RUN --mount=type=secret, not in ARG and ENV",
    "StageNameCasing": "names of stages are in lower case",
    "UndefinedArgInFrom": "FROM uses arguments that an ARG above declares",
    "UndefinedVar": "variables are declared before they are used",
    "WorkdirRelativePath": "the first WORKDIR is absolute",
}
EXPERIMENTAL = frozenset(("InvalidDefinitionDescription",))
_RESERVED = ("context", "scratch")
_SECRET = frozenset(
    ("apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token")
)
_NO_SECRET = frozenset(("public", "file", "version"))


class Finding(Record):
    """One thing that a rule found, at a line of the file (1-based)."""

    rule: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


class Options(Record):
    """What `# check=` says. "all" stands for every rule."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def wants(self, rule: str) -> bool:
        """Whether findings of this rule are wanted."""
        if rule in EXPERIMENTAL:
            return rule in self.experimental or "all" in self.experimental
        return rule not in self.skip and "all" not in self.skip


def options(text: str) -> Options:
    """The options in the value of a check directive: "skip=A,B;error=true". Raises ValueError."""
    given: dict[str, frozenset[str]] = {}
    error = False
    for part in filter(None, (part.strip() for part in text.partition(" ")[0].split(";"))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in ("skip", "experimental", "error"):
            raise ValueError(f"'{part}' is not skip=…, experimental=… or error=true")
        if name == "error":
            error = quantities.switch(value)
        else:
            given[name] = frozenset(rule.strip() for rule in value.split(","))
    return Options(error=error, **given)


def file_options(file: Dockerfile) -> Options:
    """The options that a file gives itself. Raises DockerfileError."""
    try:
        return options(file.checks)
    except ValueError as error:
        raise DockerfileError(file.path, file.checks_line, f"check: {error}") from None


def check(
    file: Dockerfile,
    *,
    build_args: Mapping[str, str] | None = None,
    environment: Environment | None = None,
    ignore: Ignore | None = None,
    chosen: Options | None = None,
) -> list[Finding]:
    """The findings of every wanted rule, by line. Raises DockerfileError for a file that cannot be built.

    Args:
        build_args: --build-arg.
        environment: gives the environment of a base image, None for one that is not known; in a stage on top of such a
            one a variable is reported only if it looks like another one misspelt.
        ignore: .dockerignore, for CopyIgnoredFile.
        chosen: instead of what the file's own directive says.
    """
    metas, stages = instructions.stages(file)
    wanted = file_options(file) if chosen is None else chosen
    found: list[Finding] = []

    def report(rule: str, at: Instruction | int, message: str) -> None:
        line = at if isinstance(at, int) else at.line
        own = Options() if isinstance(at, int) else _own_options(at)
        merged = Options(wanted.skip | own.skip, wanted.experimental | own.experimental)
        if merged.wants(rule):
            found.append(Finding(rule, line, message))

    for warning in file.warnings:
        report("NoEmptyContinuation", warning.line, warning.message)
    for step in (step for stage in stages for step in (stage.base, *stage.steps)):
        for kind, look in _EACH:
            if isinstance(step, kind):
                for rule, message in look(step):
                    report(rule, step.at, message)
    for meta in metas:
        for rule, message in (*_secrets(meta), *_description(meta)):
            report(rule, meta.at, message)
    for findings in (_casing(file), _names(stages), _in_stages(stages), _ignored(stages, ignore)):
        for rule, at, message in findings:
            report(rule, at, message)
    for rule, at, message in variable_findings(metas, stages, build_args or {}, environment):
        report(rule, at, message)
    found.sort(key=lambda finding: finding.line)
    return found


def _own_options(at: Instruction) -> Options:
    """What a comment right above an instruction says; nothing, if it is malformed."""
    for comment in at.comments:
        found = directive(f"#{comment}")
        if found and found[0] == "check":
            try:
                return options(found[1])
            except ValueError:
                return Options()
    return Options()


if TYPE_CHECKING:
    Found = Iterator[tuple[str, str]]
    Placed = Iterator[tuple[str, Instruction, str]]


def _from(step: s.From) -> Found:
    words = step.at.text.split()
    keyword = step.at.keyword
    if len(words) == 3:
        if words[2] != words[2].lower():
            yield "StageNameCasing", f"the name of stage '{words[2]}' should be in lower case"
        proper = words[1].lower() if keyword.islower() else words[1].upper()
        if (keyword.islower() or keyword.isupper()) and words[1] != proper:
            yield "FromAsCasing", f"'{words[1]}' and '{keyword}' are not written in the same case"
    if step.platform and "$" not in step.platform:
        system, _, rest = step.platform.partition("/")
        architecture = rest.partition("/")[0] or system
        if system not in step.alias and architecture not in step.alias:
            yield "FromPlatformFlagConstDisallowed", f"--platform should not be the fixed value '{step.platform}'"
    if step.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
        yield "RedundantTargetPlatform", f"--platform={step.platform} is what FROM does by itself"
    yield from _described(step.at, (step.alias,) if step.alias else ())


def _secrets(step: s.Arg | s.Env) -> Found:
    for name, _ in step.pairs:
        words = frozenset(name.lower().split("_"))
        # a name can hold two words of one kind, such as api_key_file: "file" says that it is not the secret itself
        if words & _SECRET and not words & _NO_SECRET:
            yield "SecretsUsedInArgOrEnv", f"{step.at.name} '{name}' looks like a secret, which would stay in the image"


def _pairs(step: s.Env | s.Label) -> Found:
    if step.legacy:
        name = step.at.name
        yield "LegacyKeyValueFormat", f"write '{name} name=value' instead of '{name} name value'"


def _description(step: s.Arg) -> Found:
    return _described(step.at, tuple(name for name, _ in step.pairs))


def _described(at: Instruction, names: tuple[str, ...]) -> Found:
    if (
        names
        and at.comments
        and at.comments[-1].split(" ")[0] not in names
        and directive(f"#{at.comments[-1]}") is None
    ):
        name = names[0] if len(names) == 1 else "<name>"
        yield "InvalidDefinitionDescription", f"the comment above {at.name} should be '# {name} <description>'"


def _expose(step: s.Expose) -> Found:
    for port in step.ports:
        front, _, protocol = port.rpartition(":")[2].partition("/")
        if "$" not in protocol and protocol != protocol.lower():
            yield "ExposeProtoCasing", f"the protocol in '{port}' should be in lower case"
        if ":" in port and "$" not in port:
            yield "ExposeInvalidFormat", f"'{port}' should be '{front}': no address and no port of the host"


def _maintainer(step: s.Maintainer) -> Found:
    yield "MaintainerDeprecated", f"write LABEL org.opencontainers.image.authors={step.name!r} instead of MAINTAINER"


_EACH: tuple[tuple[type[s.Step], Callable[..., Found]], ...] = (
    (s.From, _from),
    (s.Arg, _secrets),
    (s.Env, _secrets),
    (s.Env, _pairs),
    (s.Label, _pairs),
    (s.Arg, _description),
    (s.Expose, _expose),
    (s.Maintainer, _maintainer),
)


def _casing(file: Dockerfile) -> Placed:
    """Instructions are in the case that most of the file's are in; upper case if it is even."""
    first = next(i for i, at in enumerate(file.instructions) if at.name == "FROM")
    counted = file.instructions[first:]
    lower = sum(at.keyword.islower() for at in counted)
    upper = sum(at.keyword.isupper() for at in counted)
    for at in counted:
        proper = at.name.lower() if lower > upper else at.name
        if at.keyword != proper:
            kind = "lower" if lower > upper else "upper"
            yield "ConsistentInstructionCasing", at, f"'{at.keyword}' should be in {kind} case as most instructions are"


def _names(stages: tuple[s.Stage, ...]) -> Placed:
    seen: dict[str, int] = {}
    for stage in stages:
        if not stage.name:
            continue
        if stage.name in _RESERVED:
            yield "ReservedStageName", stage.base.at, f"'{stage.name}' means something else and cannot name a stage"
        if stage.name in seen:
            message = f"the name '{stage.name}' is already that of the stage in line {seen[stage.name]}"
            yield "DuplicateStageName", stage.base.at, message
        seen[stage.name] = stage.base.at.line


def _in_stages(stages: tuple[s.Stage, ...]) -> Placed:
    """What depends on the instructions before it: in the same stage, or in the stage below it."""
    has_shell: dict[int, bool] = {}
    has_workdir: dict[int, bool] = {}
    for stage in stages:
        below = instructions.find_stage(stages, stage.base.image, before=stage.index)
        shell = below is not None and has_shell[below.index]
        workdir = below is not None and has_workdir[below.index]
        last: dict[str, Instruction] = {}
        for step in stage.steps:
            name = step.at.name
            if isinstance(step, (s.Cmd, s.Entrypoint, s.Healthcheck)):
                if name in last:
                    yield "MultipleInstructionsDisallowed", last[name], f"only the last {name} of a stage counts"
                last[name] = step.at
            if isinstance(step, (s.Cmd, s.Entrypoint)) and step.shell and not shell:
                yield "JSONArgsRecommended", step.at, f'write {name} ["program", "argument"], so that signals reach it'
            if isinstance(step, s.Workdir):
                if not workdir and not step.path.startswith(("/", "$")):
                    message = f"'{step.path}' is relative to whatever the base image has as its directory"
                    yield "WorkdirRelativePath", step.at, message
                workdir = True
            shell = shell or isinstance(step, s.Shell)
        has_shell[stage.index], has_workdir[stage.index] = shell, workdir


def _ignored(stages: tuple[s.Stage, ...], ignore: Ignore | None) -> Placed:
    """Sources that .dockerignore leaves out. With exceptions in it that cannot be told without looking."""
    if ignore is None or ignore.has_exceptions:
        return
    from .ignore import clean

    everything = any(rule.pattern in ("*", "**", "**/*") for rule in ignore.rules)
    for step in (step for stage in stages for step in stage.steps):
        if not isinstance(step, s.FileStep) or step.from_:
            continue
        for source in step.sources:
            path = clean(source).lstrip("/")
            local = "$" not in source and "://" not in source and not source.startswith("git@")
            if local and (everything if path in ("", ".") else ignore.ignored(path)):
                yield "CopyIgnoredFile", step.at, f"{step.at.name} '{source}': .dockerignore leaves it out"
