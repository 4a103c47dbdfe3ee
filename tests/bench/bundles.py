# SPDX-License-Identifier: Apache-2.0
"""The low-level runtimes: create, start and delete of /bin/true from one bundle, the same config.json for all.

`runc spec` writes it; a terminal, which nobody would hold here, is taken out of it, and a cgroup of the bench's put in.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from bench.clock import Failed, call, compare
from bench.report import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.sandbox import Sandbox

PARTS = ("create", "start", "delete")


def rows(sandbox: Sandbox, pyrun_oci: str, rounds: int) -> Iterator[Row]:
    """All of it together, then each command by itself, from the same rounds."""
    bundle = make_bundle(sandbox)
    times: dict[str, dict[str, list[float]]] = {part: {} for part in PARTS}
    jobs = {
        name: life(sandbox, name, program, bundle, {part: times[part].setdefault(name, []) for part in PARTS})
        for name, program in (("pyrun-oci", pyrun_oci), ("runc", "runc"), ("crun", "crun"))
        if works(sandbox, name, program, bundle)
    }
    samples = compare(jobs, rounds)
    yield Row("`create`, `start`, wait for its end, `delete`", "ms", samples, {})
    for part in PARTS:
        yield Row(f"of it `{part}`", "ms", {name: taken[-rounds:] for name, taken in times[part].items()}, {})


def make_bundle(sandbox: Sandbox) -> str:
    """The bundle's directory."""
    bundle = f"{sandbox.directory}/bundle"
    os.mkdir(bundle)
    call(("runc", "spec", "--bundle", bundle), env=sandbox.env).ok()
    path = f"{bundle}/config.json"
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["process"] |= {"terminal": False, "args": ["/bin/true"]}
    config["root"]["path"] = sandbox.rootfs
    config["linux"]["cgroupsPath"] = f"/{sandbox.tag}/bundle"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    return bundle


def works(sandbox: Sandbox, name: str, program: str, bundle: str) -> bool:
    """Whether it can run the bundle here at all: crun 1.8 cannot where cgroup v1 and v2 are mixed."""
    try:
        life(sandbox, name, program, bundle, {part: [] for part in PARTS})()
    except Failed as error:
        if name == "pyrun-oci":
            raise
        print(f"{name} is left out: {str(error).strip().splitlines()[-1]}", flush=True)
        call((program, "--root", f"{sandbox.run}/{name}", "delete", "--force", "c1"), env=sandbox.env)
        return False
    return True


def life(sandbox: Sandbox, name: str, program: str, bundle: str, taken: dict[str, list[float]]) -> Callable[[], float]:
    """A job for compare(): milliseconds of a container's whole life; its commands' own go to `taken`."""
    pid_file = f"{sandbox.run}/{name}.pid"
    words = (program, "--root", f"{sandbox.run}/{name}")

    def command(part: str, *arguments: str) -> None:
        result = call((*words, part, *arguments, "c1"), env=sandbox.env).ok()
        taken[part].append(result.seconds * 1000)

    def job() -> float:
        begin = time.perf_counter()
        command("create", "--bundle", bundle, "--pid-file", pid_file)
        with open(pid_file, encoding="ascii") as file:
            pid = int(file.read())
        command("start")
        _, status = os.waitpid(pid, 0)  # the orphan of `create` is ours: we are PID 1
        command("delete")
        if status:
            raise Failed(f"{name}: the container ended with status {status:#x}")
        return (time.perf_counter() - begin) * 1000

    return job
