# SPDX-License-Identifier: Apache-2.0
"""The command line of scripts/vm."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from . import session
from .cache import Cache, default_path
from .errors import EXIT_FAULT, EXIT_TIMEOUT, VmError, VmTimeoutError
from .packages import install_missing
from .prepare import Wishes, ready

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
DESCRIPTION = """\
Boots a disposable VM on a copy of this checkout and runs COMMAND in it; without one, an interactive shell.

The VM has Debian's kernel, cgroup v2 alone with all controllers, the checkout at its own path (writable; what is
written is thrown away), the virtual environment at its own path and first on PATH, and the host's files, read-only, at
/host. It has no network card. It resumes from a snapshot, which is made when it is missing: so is everything else, in
${XDG_CACHE_HOME:-~/.cache}/pyrun-vm. One word of COMMAND is a line of shell, several are a program and its arguments.
"""
EPILOG = """\
exit status: the command's (128+N if signal N killed it), 124 if it took longer than --timeout, 125 if the VM failed.
In the shell: "exit" or ^D leaves; ^] three times leaves a VM that does not answer.

examples: scripts/vm                                          a shell
          scripts/vm -- pyrun run --rm -m 32m IMAGE true      one command
          scripts/vm --systemd --out results -- 'systemctl status > /out/status'
"""


class Parser(argparse.ArgumentParser):
    """argparse, with this command's exit code for its own faults."""

    def error(self, message: str) -> NoReturn:
        """One line and exit code 125."""
        self.exit(EXIT_FAULT, f"vm: {message} (scripts/vm --help)\n")


def parse(argv: list[str]) -> argparse.Namespace:
    """The options and the command. Exits with 125 on a bad one."""
    parser = Parser(
        prog="scripts/vm",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="scripts/vm [options] [-- COMMAND...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--systemd", action="store_true", help="systemd as PID 1, instead of a tiny init")
    add("--out", metavar="DIR", help="the host's directory DIR (made if missing) is /out, writable")
    add("--timeout", metavar="SECONDS", type=seconds, help="for COMMAND; default: 600, none for a shell")
    add("-i", "--stdin", action="store_true", help="pass stdin on to COMMAND (a shell has it anyway)")
    add("-t", "--tty", action="store_true", help="run COMMAND on this terminal, as a shell is")
    add("--venv", metavar="DIR", help="the virtual environment; default: that of scripts/test, else of scripts/setup")
    add("--memory", metavar="MIB", type=count, default=2048, help="default: 2048")
    add("--cpus", metavar="N", type=count, default=2, help="default: 2")
    add("--console", metavar="FILE", default="", help="the kernel's messages go to FILE")
    add("--prepare", action="store_true", help="make the snapshot if it is missing, and run nothing")
    add("-v", "--verbose", action="store_true", help="say what takes how long, on stderr")
    add("command", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.tty and not os.isatty(0):
        parser.error("--tty needs a terminal on stdin")
    return options


def count(text: str) -> int:
    """A whole number above 0, in ASCII digits."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """A number above 0 in ASCII digits, with a decimal point or without."""
    whole, _, rest = text.partition(".")
    if not (text.isascii() and whole.isdigit() and (rest or "0").isdigit() and float(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return float(text)


class Clock:
    """Prints what was done, and the seconds since the start, for --verbose."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.start = time.monotonic()

    def __call__(self, text: str) -> None:
        if self.verbose:
            print(f"vm: {time.monotonic() - self.start:6.3f} s {text}", file=sys.stderr, flush=True)


def default_venv() -> str:
    """The virtual environment to bring along when none is named: that of scripts/test for this checkout, else that of
    scripts/setup, else "" for none."""
    name = f"{os.path.basename(CHECKOUT)}-{hashlib.sha256(CHECKOUT.encode()).hexdigest()[:8]}"
    development = f"{os.environ.get('PYRUN_DEV_DIR') or '/opt/pyrun-dev'}/{name}"
    for path in (development, os.path.realpath("/opt/pyrun/current")):
        if os.path.exists(f"{path}/bin/pyrun"):
            return path
    return ""


def job_of(options: argparse.Namespace) -> session.Job:
    """What the options ask the guest to do."""
    words: list[str] = options.command
    venv = default_venv() if options.venv is None else options.venv
    return session.Job(
        command=words[0] if len(words) == 1 else shlex.join(words),
        checkout=CHECKOUT,
        venv=os.path.abspath(venv) if venv else "",
        out=bool(options.out),
        tty=options.tty or (not words and os.isatty(0)),
        stdin=options.stdin or options.tty or not words,
        timeout=options.timeout or (600.0 if words else None),
    )


def run(options: argparse.Namespace) -> int:
    """Does what the options say; the exit code. Raises VmError, VmTimeoutError, OSError, KeyboardInterrupt."""
    if platform.machine() != "x86_64":
        raise VmError(f"this needs an x86-64 machine, not {platform.machine()}")
    if os.geteuid() != 0:
        raise VmError("this needs root: the root disk is made by root's mmdebstrap (try sudo)")
    os.umask(0o022)  # for the files on the disks: the guest has other users than root
    clock = Clock(options.verbose)
    install_missing()
    job = job_of(options)
    cache = Cache(default_path())
    wishes = Wishes(
        checkout=job.checkout,
        venv=job.venv,
        out=os.path.abspath(options.out) if options.out else "",
        console=options.console,
        systemd=options.systemd,
        mebibytes=options.memory,
        cpus=options.cpus,
    )
    with cache.lock():
        machine, control = ready(cache, wishes, clock)
    try:
        clock("the VM is ready")
        return 0 if options.prepare else session.run(machine, control, job)
    finally:
        machine.kill()
        clock("done")


def main(argv: list[str]) -> int:
    """The exit code of `scripts/vm argv`; prints the one line that goes with 124 and 125."""
    options = parse(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        return run(options)
    except VmTimeoutError as error:
        return _fault(str(error), EXIT_TIMEOUT)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 128 + signal.SIGPIPE  # nobody reads what the command prints
    except (VmError, OSError, shutil.Error) as error:
        return _fault(str(error), EXIT_FAULT)


def _fault(text: str, code: int) -> int:
    print(f"vm: {text}", file=sys.stderr)
    return code


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)  # through every `finally`
