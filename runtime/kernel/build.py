# SPDX-License-Identifier: Apache-2.0
"""Builds the C parts with the package: three cffi modules and two static programs.

setuptools calls BuildExt (pyproject.toml, [tool.setuptools.cmdclass]) for a wheel and for `pip install -e .` alike.
The programs are static, so that nothing of the container is loaded into them, and position independent, full RELRO
and stack-protected, as Debian builds its own (dpkg-buildflags hardening=+all).
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
from typing import Any

from setuptools.command.build_ext import build_ext

HERE = os.path.dirname(os.path.abspath(__file__))

CFLAGS = (
    "-std=c17 -D_GNU_SOURCE -O2 -g0 -Wall -Wextra -Werror -Wshadow "
    "-fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE -static-pie "
    "-Wl,-z,relro,-z,now,-z,noexecstack -ffile-prefix-map={here}=."
)

#: program -> its sources, all below this folder
PROGRAMS = {
    "pyrun-init": ("init/init.c", "init/root.c", "init/process.c", "init/terminal.c"),
    "pyrun-keeper": ("keeper.c",),
}

#: extension module -> the file here that holds its `ffibuilder`
CFFI_MODULES = {"_kernel": "kernel_cdef", "_seccomp": "seccomp_cdef", "_nftables": "nftables_cdef"}


def load_builder(name: str) -> Any:
    """The cffi FFI object `ffibuilder` of the file `name`.py beside this one."""
    spec = importlib.util.spec_from_file_location(f"_pyrun_build_{name}", os.path.join(HERE, f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffibuilder


class BuildExt(build_ext):
    """build_ext that generates the cffi sources first and compiles the static programs after."""

    def build_extensions(self) -> None:
        os.makedirs(self.build_temp, exist_ok=True)
        for extension in self.extensions:
            name = extension.name.rpartition(".")[2]
            source = os.path.join(self.build_temp, f"{name}.c")
            load_builder(CFFI_MODULES[name]).emit_c_code(source)
            extension.sources = [source, *extension.sources]
            extension.include_dirs.append(HERE)
            extension.depends += [os.path.join(HERE, "init", "wire.h")]
        super().build_extensions()
        for program, sources in PROGRAMS.items():
            self.build_program(program, sources)

    def program_path(self, program: str) -> str:
        """Where the program goes: beside this file for an editable install, else into the wheel's tree."""
        if self.inplace or getattr(self, "editable_mode", False):
            return os.path.join(HERE, program)
        return os.path.join(self.build_lib, "pyrun", "runtime", "kernel", program)

    def build_program(self, program: str, sources: tuple[str, ...]) -> None:
        """Compiles and links one static program. Raises CalledProcessError; the compiler has said why."""
        target = self.program_path(program)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        command = [
            *shlex.split(os.environ.get("CC", "cc")),
            *CFLAGS.format(here=HERE).split(),
            *(os.path.join(HERE, source) for source in sources),
            "-o",
            target,
        ]
        self.announce(shlex.join(command), level=2)
        subprocess.run(command, check=True)

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), *(self.program_path(program) for program in PROGRAMS)]
