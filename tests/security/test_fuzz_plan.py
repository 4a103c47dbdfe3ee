# SPDX-License-Identifier: Apache-2.0
"""pyrun-init's plan decoder under mutated plans, with address and undefined-behaviour sanitizers.

PYRUN_FUZZ_S=600 makes it longer than its 20 seconds. With clang and its runtime the mutations follow the coverage
(libFuzzer); with gcc alone they are random. Nothing of a plan is executed: fuzz_plan.c replaces the steps.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrun.runtime.kernel import wire
from pyrun.runtime.oci.wire import Wire
from requires import requires

if TYPE_CHECKING:
    from pyrun.runtime.oci.wire import Arg

HERE = Path(__file__).resolve().parent
INIT = HERE.parent.parent / "runtime/kernel/init"
SOURCES = [HERE / "fuzz_plan.c", INIT / "init.c"]
FLAGS = ["-std=gnu17", "-g", "-O1", "-fno-sanitize-recover=all", "-DPYRUN_FUZZ", f"-I{INIT}"]
SECONDS = os.environ.get("PYRUN_FUZZ_S", "20")

ARGUMENTS: dict[str, Arg] = {"u": 7, "s": "/some/path", "b": b"\1\2\3\4", "l": ("sh", "-c", "true"), "f": "fd"}


def build(target: Path) -> bool:
    """Makes the fuzzer; says whether it is libFuzzer's."""
    for compiler, kind in (("clang", ["-fsanitize=fuzzer,address,undefined"]),
                           ("cc", ["-fsanitize=address,undefined", "-DSTANDALONE"])):  # fmt: skip
        try:
            done = subprocess.run([compiler, *FLAGS, *kind, *SOURCES, "-o", target], capture_output=True, text=True,
                                  timeout=120, check=False)  # fmt: skip
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return compiler == "clang"
    pytest.fail(f"the fuzzer does not build:\n{done.stderr}")


def seeds(directory: Path) -> list[Path]:
    """A plan with every operation, and one plan for each."""
    everything = Wire()
    files = []
    for number, (name, signature) in enumerate(_operations()):
        alone = Wire()
        for plan in (everything, alone):
            plan.add(name, [ARGUMENTS[kind] for kind in signature])
        files.append(directory / f"{number}")
        files[-1].write_bytes(alone.finish(trace=bool(number % 2)))
    files.append(directory / "everything")
    files[-1].write_bytes(everything.finish(trace=True))
    return files


def _operations() -> list[tuple[str, str]]:
    return [(name, signature) for name, (_, signature) in wire.OPERATIONS.items()]


@requires(tools=("cc",))
def test_mutated_plans_are_refused_and_never_misread(tmp_path: Path) -> None:
    """Whatever the bytes are: no read or write out of bounds, no string without an end, no list without one."""
    fuzzer, corpus = tmp_path / "fuzz_plan", tmp_path / "corpus"
    corpus.mkdir()
    guided = build(fuzzer)
    files = seeds(corpus)
    command: list[str | Path]
    if guided:
        command = [fuzzer, f"-max_total_time={SECONDS}", "-max_len=65536", "-print_final_stats=1", corpus]
    else:
        command = [fuzzer, SECONDS, "1", *files]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=int(SECONDS) + 120, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
