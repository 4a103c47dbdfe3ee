# SPDX-License-Identifier: Apache-2.0
"""Names and ids of containers: what is allowed, and names made up for those who give none."""

from __future__ import annotations

import os

from pyrun.runtime.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ID_LENGTH = 64
MAX_LENGTH = 200  # a name is a file name in <data>/names (NAME_MAX is 255)
HEX = frozenset("0123456789abcdef")
FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
REST = FIRST | frozenset("_.-")

ADJECTIVES = (
    "agile amber ample azure bold brave breezy bright brisk calm candid cheery chirpy clear clever cosy crisp curious "
    "dapper daring deft dewy eager early easy elated fair fleet fluent fond fresh frosty gentle gilded glad golden "
    "graceful handy hardy hazel honest humble jaunty jolly keen kind lively loyal lucid lucky mellow merry mild mighty "
    "modest neat nimble noble patient placid plucky polite proud quick quiet rapid ready rosy rustic sandy serene "
    "sharp silent silver sleek smart snowy snug solid spry steady stout sunny swift tender tidy tranquil trusty upbeat "
    "vivid warm wily windy wise witty zesty"
)
NOUNS = (
    "acorn anchor aspen badger beacon birch bison bramble breeze brook canyon cedar cinder clover comet condor coral "
    "crane creek cricket delta dolphin dune ember falcon fern finch fjord fox garnet geyser glacier grove harbor hazel "
    "heron hill ibex iris island jasper juniper kestrel lagoon lantern larch lark lemur lichen lotus lynx magpie maple "
    "marble marten meadow mesa mistral moss nebula newt oak ocelot orchid osprey otter owl panda pebble petrel pine "
    "plover poppy prairie puffin quail quartz raven reef ridge river robin saffron sage salmon sparrow spruce squid "
    "stork summit swallow tern thicket thistle tundra valley walnut willow wombat wren yarrow zephyr"
)


def is_id(text: str) -> bool:
    """Whether `text` is a whole container id: 64 lower-case hex digits."""
    return len(text) == ID_LENGTH and is_id_prefix(text)


def is_id_prefix(text: str) -> bool:
    """Whether `text` could be the beginning of an id."""
    return 0 < len(text) <= ID_LENGTH and HEX.issuperset(text)


def is_name(text: str) -> bool:
    """Whether `text` may name a container: docker's rule, [a-zA-Z0-9][a-zA-Z0-9_.-]+ in ASCII."""
    return 2 <= len(text) <= MAX_LENGTH and text[0] in FIRST and REST.issuperset(text)


def check(name: str) -> None:
    """Raises UsageError unless `name` may name a container."""
    if is_name(name):
        return
    if len(name) > MAX_LENGTH:
        raise UsageError("bad container name", f"{len(name)} characters; {MAX_LENGTH} are allowed")
    why = f"'{name}' does not match [a-zA-Z0-9][a-zA-Z0-9_.-]+"
    raise UsageError("bad container name", why, hint="use two or more letters, digits, '_', '.' and '-'")


def random_name(free: Callable[[str], bool]) -> str:
    """An adjective_noun that is `free`, with a number after it when the plain ones are hard to come by."""
    adjectives, nouns = ADJECTIVES.split(), NOUNS.split()
    for attempt in range(1000):
        one, two, number = os.urandom(3)
        name = f"{adjectives[one % len(adjectives)]}_{nouns[two % len(nouns)]}"
        if attempt >= 10:  # thousands of containers: most pairs are taken
            name += str(number)
        if free(name):
            return name
    raise PyrunError("choose a name", "a thousand tries found no free one", hint="use --name")
