# SPDX-License-Identifier: Apache-2.0
"""Which module may import which (docs/architecture.md, Modules and their imports).

Read from the source, so imports inside functions and below `if TYPE_CHECKING:` count as well: a layer that only names a
higher one's types already knows too much. What the hot paths load at run time is tested where those commands are.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("runtime", "cgroups", "netns", "rootfs")  # installed as pyrun.<folder>

LEAVES = ("errors", "record", "paths", "files", "undo", "events", "breakpoints")

# From the bottom up. A module may import its own layer's package and every layer below; two packages of one layer know
# nothing of each other.
LAYERS = (
    ("pyrun.runtime", *(f"pyrun.runtime.{leaf}" for leaf in LEAVES)),
    ("pyrun.runtime.kernel",),
    ("pyrun.cgroups", "pyrun.netns", "pyrun.rootfs"),
    ("pyrun.runtime.oci",),
    ("pyrun.runtime.monitor",),
    ("pyrun.runtime.engine",),
    ("pyrun.runtime.cli",),
)

# Modules that only one package may import, and why.
RESERVED = {
    "cffi": "pyrun.runtime.kernel",
    "_cffi_backend": "pyrun.runtime.kernel",
    "ctypes": "pyrun.runtime.kernel",  # nobody does: cffi is how this project calls C
    "pyrun.runtime.kernel._kernel": "pyrun.runtime.kernel",
    "pyrun.runtime.kernel._seccomp": "pyrun.runtime.kernel",
    "pyrun.runtime.kernel._nftables": "pyrun.runtime.kernel",
    "pyroute2": "pyrun.netns",  # 150 ms: whoever needs no network must not pay for it
}

# Never at run time: each costs every start more than it gives (runtime/record.py). Type checkers may import them.
SLOW = {"dataclasses", "typing", "contextlib", "inspect", "pathlib", "argparse"}


class Import(NamedTuple):
    """One imported module, and where."""

    importer: str
    target: str
    line: int
    for_types: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    """The installed name of a source file: runtime/oci/plan.py is pyrun.runtime.oci.plan."""
    parts = ["pyrun", *path.relative_to(CHECKOUT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for folder in FOLDERS for path in sorted((CHECKOUT / folder).rglob("*.py"))}


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def imports_of(name: str, path: Path) -> list[Import]:
    """Every import statement of a module, however deep; `from package import module` counts as the module."""
    tree = ast.parse(path.read_bytes(), str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and is_type_checking(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            # `from pyrun.runtime import errors` is an import of pyrun.runtime.errors, if there is such a module
            members = {f"{base}.{alias.name}" for alias in node.names}
            modules = sorted(member for member in members if member in SOURCES or member in RESERVED)
            targets = [*modules, *([base] if len(modules) < len(members) else [])]
        found += [Import(name, target, node.lineno, node in for_types) for target in targets]  # type: ignore[attr-defined]
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def place(module: str) -> tuple[int, str]:
    """The (layer, package) that a module of ours belongs to."""
    for layer, packages in reversed(list(enumerate(LAYERS))):
        for package in packages:
            if module == package or (layer > 0 and within(module, package)):
                return layer, package
    raise AssertionError(f"{module} is in no layer: add it to LAYERS (or it does not exist)")


IMPORTS = [found for name, path in SOURCES.items() for found in imports_of(name, path)]


def test_something_is_being_read() -> None:
    """The test sees the project's modules and an import that is certainly there."""
    assert "pyrun.runtime.errors" in SOURCES
    assert any(found.importer == "pyrun.runtime.paths" and found.target == "pyrun.runtime.record" for found in IMPORTS)


def test_imports_run_one_way() -> None:
    """No module imports a layer above its own, nor a neighbour in its layer."""
    wrong = []
    for found in IMPORTS:
        if not within(found.target, "pyrun"):
            continue
        (from_layer, from_package), (to_layer, to_package) = place(found.importer), place(found.target)
        neighbours = from_layer == to_layer and from_package != to_package and from_layer > 0
        if to_layer > from_layer or neighbours:
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_leaves_import_only_the_standard_library() -> None:
    """The leaf modules can be imported from everywhere, so they stand on nothing but each other and Python."""
    wrong = [
        str(found)
        for found in IMPORTS
        if place(found.importer)[0] == 0
        and not within(found.target, "pyrun")
        and found.target.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("module", "owner"), RESERVED.items())
def test_reserved_module_is_imported_by_its_owner_only(module: str, owner: str) -> None:
    """One package wraps each of these; the others call the wrapper."""
    wrong = [str(found) for found in IMPORTS if within(found.target, module) and not within(found.importer, owner)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "package",
    ["pyrun.runtime.kernel", "pyrun.runtime.oci", "pyrun.cgroups", *(f"pyrun.runtime.{leaf}" for leaf in LEAVES)],
)
def test_hot_modules_do_not_import_slow_ones_at_their_top(package: str) -> None:
    """What every pyrun-oci command loads imports none of the standard library's slow modules when it is loaded."""
    wrong = []
    for name, path in SOURCES.items():
        if not within(name, package) or name.endswith(("_cdef", ".build")):
            continue
        top = [node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in top:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            wrong += [f"{name}:{node.lineno} imports {slow}" for slow in names if slow.partition(".")[0] in SLOW]
    assert not wrong, "\n".join(wrong)


def test_every_installed_package_is_named_in_pyproject() -> None:
    """A new folder of modules has to be added to tool.setuptools.packages, or the wheel comes without it."""
    import tomllib

    listed = set(tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {name for name, path in SOURCES.items() if path.name == "__init__.py"}
    folders = {name.rpartition(".")[0] for name, path in SOURCES.items() if path.name != "__init__.py"}
    assert present | folders == listed
