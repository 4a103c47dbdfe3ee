# SPDX-License-Identifier: Apache-2.0
"""What one comparison of two builders consists of; the tables of them are build_cases_*.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from buildtrees import Content


@dataclass(frozen=True)
class Case:
    """A Dockerfile and its context.

    files    of the context, as buildtrees.make() takes them
    flags    of the build, the same for both; {context} is the context's directory
    base     a Dockerfile that is built first, as the image base:1
    fails    who has to refuse it: "both", "ours" or "theirs"
    why      one of them alone refuses it: why that is right
    differs  what is not the same, and why: the beginnings of lines of likeness.differences(); all must occur
    """

    name: str
    dockerfile: str
    files: Mapping[str, Content] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    base: str = ""
    fails: str = ""
    why: str = ""
    differs: Mapping[str, str] = field(default_factory=dict)
