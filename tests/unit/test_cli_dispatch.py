# SPDX-License-Identifier: Apache-2.0
"""`pyrun` from the outside: help, unknown commands, errors rendered once with the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyrun.runtime.cli import dispatch, flags, main
from pyrun.runtime.cli.context import one_line
from pyrun.runtime.cli.table import COMMANDS, GROUPS
from pyrun.runtime.errors import NotFound, PyrunError, StartError, UsageError


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roots of its own for every test, and no PYRUN_DEBUG from an earlier one."""
    monkeypatch.setenv("PYRUN_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("PYRUN_RUN_ROOT", str(tmp_path / "run"))
    monkeypatch.setenv("PYRUN_DEBUG", "")


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = dispatch.run_command(argv)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"help"}))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`pyrun X --help` and `pyrun help X` print the same page: usage, summary and every flag that is not hidden."""
    code, page, err = call(capsys, *name.split(), "--help")
    assert (code, err) == (0, "")
    command = dispatch.load(name)
    assert page.startswith(f"Usage: pyrun {name} ".rstrip())
    assert command.summary in page
    for flag in command.flags:
        assert (f"--{flag.name}" in page.split()) != (flag.hidden or bool(flag.refused))
    assert max(len(line) for line in page.splitlines()) <= 160
    assert call(capsys, "help", *name.split()) == (0, page, "")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_well_formed(name: str) -> None:
    """A command is called what the table says, its flags are unique, and its usage agrees with its counts."""
    command = dispatch.load(name)
    assert command.name == name
    words = [word for flag in command.flags for word in (flag.name, *flag.aliases)]
    shorts = [flag.short for flag in command.flags if flag.short]
    assert len(words) == len(set(words))
    assert len(shorts) == len(set(shorts))
    assert all(flag.kind in (flags.SWITCH, flags.VALUE, flags.LIST) for flag in command.flags)
    assert bool(command.usage) == (command.most != 0)
    assert command.summary
    assert not command.summary.endswith(".")


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",), ("help",)])
def test_overview(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the overview lists every command of its own name."""
    code, out, _ = call(capsys, *argv)
    assert code == 0
    for name in COMMANDS:
        if " " not in name and name != "help":
            assert f"  {name} " in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`pyrun --version` is one line."""
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert out.startswith("pyrun version ")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_for_a_group(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`pyrun volume --help` lists the group's commands."""
    code, out, _ = call(capsys, "volume", flag)
    assert code == 0
    assert out.startswith("Usage: pyrun volume COMMAND\n")


@pytest.mark.parametrize(
    ("argv", "line", "hint"),
    [
        (("rnu",), "pyrun: unknown command 'rnu'", "hint: did you mean 'run'?"),
        (("imgaes",), "pyrun: unknown command 'imgaes'", "hint: did you mean 'images'?"),
        (("xyzzy",), "pyrun: unknown command 'xyzzy'", "hint: pyrun --help lists the commands"),
        (("update", "x"), "pyrun: unknown command 'update': pyrun does not have it yet", "hint: remove the container"),
        (("image", "lss"), "pyrun: unknown command 'image lss'", "hint: did you mean 'image ls'?"),
        (
            ("container", "update"),
            "pyrun: unknown command 'container update': pyrun does not have it yet",
            "hint: remove the container",
        ),
        (
            ("network", "rm"),
            "pyrun: unknown command 'network rm': pyrun does not have it yet",
            "hint: there are bridge",
        ),
        (("volume", "search"), "pyrun: unknown command 'volume search'", "hint: pyrun --help lists the commands"),
        (("image",), "pyrun: image: needs a command", "hint: one of build, ls, "),
        (("--frob",), "pyrun: unknown flag --frob", "hint: pyrun --help lists the global flags"),
        (("ps", "--al"), "pyrun: ps: unknown flag --al", "hint: did you mean --all?"),
        (("ps", "web"), "pyrun: ps: takes no arguments, got 'web'", "hint: pyrun ps [OPTIONS]"),
        (("ps", "--filter", "x"), "pyrun: flag --filter 'x': expected NAME=VALUE", ""),
        (("ps", "--filter", "nmae=x"), "pyrun: --filter nmae=x: unknown filter 'nmae'", "hint: did you mean 'name'?"),
        (("ps", "--format", "{{.Nmae"), "pyrun: --format: {{.Nmae is not closed with }}", ""),
        (("help", "xyzzy"), "pyrun: unknown command 'xyzzy'", ""),
        (("cp", "a", "b"), "pyrun: cp: neither side is a container", "hint: pyrun cp web:/etc/hosts"),
    ],
)
def test_usage_errors(argv: tuple[str, ...], line: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, one hint, exit code 125, nothing on stdout."""
    code, out, err = call(capsys, *argv)
    assert code == 125
    assert out == ""
    assert err.splitlines()[0] == line
    assert hint in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize("command", ["logs", "port", "top", "inspect", "rename"])
def test_no_such_container_is_1(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not about the command line exits with 1, as docker's commands do."""
    argv = (command, "nosuch", *(["other"] if command == "rename" else []))
    code, _, err = call(capsys, *argv)
    assert code == 1
    assert "no such" in err
    assert "'nosuch'" in err


def test_inspect_of_nothing_prints_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that parses stdout gets JSON even when nothing was found."""
    code, out, err = call(capsys, "inspect", "nosuch")
    assert (code, out) == (1, "[]\n")
    assert err.startswith("pyrun: no such object 'nosuch'")


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [
        ("run", NotFound("no such image 'x'"), 125),
        ("create", NotFound("no such image 'x'"), 1),
        ("run", StartError("exec /nope", "not found", code=127), 127),
        ("exec", StartError("exec /nope", "permission denied", code=126), 126),
        ("exec", NotFound("no such container 'x'"), 1),
        ("stop", UsageError("stop", "needs an argument"), 125),
        ("run", KeyboardInterrupt(), 130),
        ("ps", OSError(28, "No space left on device", "/x"), 1),
        ("ps", ZeroDivisionError("oops"), 1),
    ],
)
def test_exit_codes(name: str, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """125 for pyrun's own failure to run and for a bad command line, 126 and 127 from exec, 1 for the rest."""
    assert dispatch.failed(error, dispatch.load(name)) == code
    err = capsys.readouterr().err
    assert err.startswith("pyrun: ") or not err


def test_error_is_one_line_with_notes_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Clean-up notes follow the line; a name in it cannot forge a line or send an escape sequence."""
    error = PyrunError("run we\nb", "no \x1b[31mspace", hint="free some")
    error.add_note("clean-up: unlink x")
    dispatch.failed(error)
    assert capsys.readouterr().err == "pyrun: run we\\nb: no \\x1b[31mspace\n  clean-up: unlink x\nhint: free some\n"
    assert one_line("bytes \udcff stay") == "bytes \udcff stay"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--debug, and only it, prints a traceback."""
    code, _, err = call(capsys, "logs", "nosuch")
    assert "Traceback" not in err
    code, _, err = call(capsys, "--debug", "logs", "nosuch")
    assert code == 1
    assert "Traceback" in err
    assert err.count("pyrun: no such container 'nosuch'") == 1


def test_global_flags_become_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The roots and --debug reach a worker of the monitor as they reach this process; the rest is left alone."""
    words = ["--data-root=/d", "--run-root", "r", "-D", "run", "--debug", "x"]
    assert main.global_flags(words) == [
        "run",
        "--debug",
        "x",
    ]
    assert os.environ["PYRUN_DATA_ROOT"] == "/d"
    assert os.environ["PYRUN_RUN_ROOT"] == str(Path.cwd() / "r")
    assert os.environ["PYRUN_DEBUG"] == "1"


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_groups_lead_to_commands(group: str) -> None:
    """Every word of a management command stands for a command that there is."""
    for word, name in GROUPS[group].items():
        assert main.find([group, word, "x"]) == (name, ["x"])
        assert name in COMMANDS


def test_help_is_found_only_among_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    """`pyrun exec web ls --help` is for ls; `run -h NAME` is the host name; `--name --help` is a strange name."""
    for words in (["exec", "web", "ls", "--help"], ["run", "-h", "x", "i"], ["run", "--name", "--help", "i"]):
        command, rest = dispatch.resolve(words)
        assert not dispatch._wants_help(command, rest)
    for words in (["exec", "--help"], ["run", "-d", "--help"], ["stop", "web", "-h"], ["run", "--name", "x", "--help"]):
        command, rest = dispatch.resolve(words)
        assert dispatch._wants_help(command, rest)


def _imported(*argv: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after the command's own modules were imported."""
    code = "import sys\nfrom pyrun.runtime.cli import main\n" + "\n".join(argv) + "\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_hot_path_imports_next_to_nothing() -> None:
    """Handing a command line to the monitor loads neither json nor re, enum, typing, argparse nor any command."""
    bare = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True
    )
    new = _imported("main.find(main.global_flags(['run', 'x']))") - set(bare.stdout.split())
    ours = {name for name in new if name.startswith("pyrun.runtime.")}
    assert ours == {"pyrun.runtime.cli", "pyrun.runtime.cli.main", "pyrun.runtime.cli.table"}
    assert not new & {"json", "re", "enum", "typing", "argparse", "dataclasses", "subprocess", "socket", "pathlib"}


def test_ps_imports_no_heavy_module() -> None:
    """Listing is cold: it must not drag in what only starting containers needs."""
    new = _imported("from pyrun.runtime.cli import dispatch", "dispatch.load('ps')")
    assert not new & {"pyroute2", "asyncio", "argparse", "typing", "dataclasses", "subprocess", "socket", "inspect"}


def test_a_broken_pipe_is_quiet(tmp_path: Path) -> None:
    """`pyrun run --help | head -1` says nothing on stderr."""
    env = {**os.environ, "PYRUN_DATA_ROOT": str(tmp_path), "PYRUN_RUN_ROOT": str(tmp_path)}
    code = "from pyrun.runtime.cli.dispatch import run_command; import sys; sys.exit(run_command(['run', '--help']))"
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=write_end, stderr=subprocess.PIPE, env=env)
    finally:
        os.close(write_end)
    assert done.stderr == b""
    assert done.returncode == 141
