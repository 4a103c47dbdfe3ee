# SPDX-License-Identifier: Apache-2.0
"""Fields: reading one JSON object of a configuration with errors that carry the JSON path."""

from __future__ import annotations

from pyrun.runtime.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INT64_MAX = (1 << 63) - 1
UINT64_MAX = (1 << 64) - 1


class Fields:
    """A JSON object at the path `where`; a field that is absent or null is None, [] or an empty Fields.

    Every method raises SpecError for a value of the wrong type. Unknown fields are left alone, as the
    runtime-spec asks (extensibility).
    """

    __slots__ = ("raw", "where")

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise SpecError(where, f"must be an object, not {_shown(raw)}")
        self.raw: dict[str, Any] = raw
        self.where = where

    def at(self, name: str) -> str:
        """The JSON path of a field, for messages."""
        return f"{self.where}.{name}"

    def whole(self, name: str, low: int = 0, high: int = INT64_MAX) -> int | None:
        """A whole number from `low` to `high`."""
        value = self.raw.get(name)
        if value is None:
            return None
        if type(value) is not int:  # neither True nor 1.0: Go's decoder refuses them too
            raise SpecError(self.at(name), f"must be a whole number, not {_shown(value)}")
        if not low <= value <= high:
            raise SpecError(self.at(name), f"must be from {low} to {high}, not {value}")
        return value

    def required(self, name: str, low: int = 0, high: int = INT64_MAX) -> int:
        """whole(), but the field must be there."""
        value = self.whole(name, low, high)
        if value is None:
            raise SpecError(self.at(name), "is required")
        return value

    def text(self, name: str) -> str:
        """A string; "" when absent."""
        value = self.raw.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise SpecError(self.at(name), f"must be a string, not {_shown(value)}")
        return value

    def flag(self, name: str) -> bool | None:
        """true or false."""
        value = self.raw.get(name)
        if value is not None and not isinstance(value, bool):
            raise SpecError(self.at(name), f"must be true or false, not {_shown(value)}")
        return value

    def inside(self, name: str) -> Fields:
        """An object; without fields when absent."""
        value = self.raw.get(name)
        return Fields({} if value is None else value, self.at(name))

    def each(self, name: str) -> list[Fields]:
        """The objects of an array; [] when absent."""
        value = self.raw.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise SpecError(self.at(name), f"must be an array, not {_shown(value)}")
        return [Fields(item, f"{self.at(name)}[{index}]") for index, item in enumerate(value)]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
