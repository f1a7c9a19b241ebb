"""What is usual in a domain: its event names, what is learned as a target, and its time scales (a TOML file each).

The figures are starting points from what the words mean, not measured optima: ``xrec-train tune`` finds better ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from xrec_sdk.errors import UsageError

from xrec_trainer import toml

PRESETS = ("ecommerce", "education", "finance", "social")


@dataclass(frozen=True)
class Preset:
    """One domain. ``events`` maps the names that its platforms use to those of the log."""

    targets: tuple[str, ...]
    auxiliary_targets: tuple[tuple[str, float], ...]
    events: Mapping[str, str]
    settings: Mapping[str, Any]

    @property
    def event_names(self) -> tuple[str, ...]:
        """Every event name of the log that the domain speaks of, sorted."""
        learned = (*self.targets, *(name for name, _ in self.auxiliary_targets))
        return tuple(sorted({*learned, *self.events.values()}))

    def values(self) -> dict[str, Any]:
        """Return the values of a FitConfig that the domain sets."""
        return {"targets": self.targets, "auxiliary_targets": self.auxiliary_targets, **self.settings}


def load_preset(name: str) -> Preset:
    """Read a preset; raises UsageError ``usage.preset`` for a name that is none."""
    if name not in PRESETS:
        raise UsageError("usage.preset", f"no preset is named {name!r}; there are {', '.join(PRESETS)}")
    text = files("xrec_trainer.presets").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    read = toml.loads(text)
    return Preset(
        tuple(read["targets"]), tuple(read["auxiliary_targets"].items()), read.get("events", {}), read["settings"]
    )
