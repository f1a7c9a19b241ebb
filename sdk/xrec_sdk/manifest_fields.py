"""Read the values of a manifest one by one, each within its bounds."""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from xrec_sdk.errors import BundleDamaged

MAX_NAMES = 256


def fail(message: str) -> NoReturn:
    """Raise BundleDamaged ``bundle.manifest_malformed``."""
    raise BundleDamaged("bundle.manifest_malformed", f"manifest.json: {message}")


class Fields(NamedTuple):
    """One JSON object of the manifest, read value by value with bounds; what is out of them is BundleDamaged."""

    values: dict[str, object]
    path: str

    def child(self, key: str) -> Fields:
        """Return an object."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            fail(f"{self.path}.{key} must be an object")
        return Fields(value, f"{self.path}.{key}")

    def integer(self, key: str, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``."""
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            fail(f"{self.path}.{key} must be an integer from {low} to {high}")
        return value

    def number(self, key: str) -> float:
        """Return a number of at most a million, either sign."""
        value = self.values.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= 1e6:
            fail(f"{self.path}.{key} must be a number of at most a million")
        return float(value)

    def boolean(self, key: str) -> bool:
        """Return true or false."""
        value = self.values.get(key)
        if not isinstance(value, bool):
            fail(f"{self.path}.{key} must be true or false")
        return value

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        """Return a text of 1 to 200 characters, one that matches ``pattern`` whole."""
        value = self.values.get(key)
        if not isinstance(value, str) or not _is_name(value) or (pattern and not pattern.fullmatch(value)):
            fail(f"{self.path}.{key} must be a short text" + (f" like {pattern.pattern}" if pattern else ""))
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """Return distinct texts."""
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) > MAX_NAMES:
            fail(f"{self.path}.{key} must be a list of at most {MAX_NAMES} names")
        names = tuple(name for name in value if isinstance(name, str) and _is_name(name))
        if len(names) != len(value) or len(set(names)) != len(names):
            fail(f"{self.path}.{key} must hold distinct short texts")
        return names


def _is_name(text: str) -> bool:
    # A lone surrogate has no UTF-8 bytes; JSON can spell it as an escape.
    return 1 <= len(text) <= 200 and not any("\ud800" <= letter <= "\udfff" for letter in text)
