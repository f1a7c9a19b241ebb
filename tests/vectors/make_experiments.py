"""Write experiments.json: which arm a unit is in, and which arguments are refused, in every language.

python tests/vectors/make_experiments.py
"""

from __future__ import annotations

import json
from pathlib import Path

from xrec_sdk import UsageError, assign

UNITS = ("", "anna", "berta", "café", "用户-42", "🍵", "a\0b", *(f"user-{number}" for number in range(20)))
SHARES: tuple[list[tuple[str, float]], ...] = (
    [("old", 1), ("new", 1)],
    [("a", 0.1), ("b", 0.2), ("c", 0.7)],
    [("2", 1), ("10", 0), ("1", 3)],
    [("off", 0), ("on", 1e-9), ("later", 0)],
)
REFUSED: tuple[tuple[str, list[tuple[str, object]]], ...] = (
    ("", [("a", 1)]),
    ("rank.2", [("a", 1)]),
    ("rank", [("a=b", 1)]),
    ("rank", [("a\n", 1)]),
    ("r" * 65, [("a", 1)]),
    ("rank", []),
    ("rank", [("a", 0)]),
    ("rank", [("a", -1), ("b", 2)]),
    ("rank", [("a", "half")]),
)


def refusal(experiment: str, arms: list[tuple[str, object]]) -> str:
    """Return the code that `assign` gives."""
    try:
        assign(experiment, "anna", dict(arms))  # type: ignore[arg-type]
    except UsageError as error:
        return error.code
    raise AssertionError(f"{experiment!r} with {arms} was not refused")


def main() -> None:
    """Write the file beside this one."""
    assigned = [
        {"experiment": name, "unit": unit, "arms": arms, "arm": assign(name, unit, dict(arms)).name}
        for number, arms in enumerate(SHARES)
        for name in (f"experiment_{number}",)
        for unit in UNITS
    ]
    refused = [{"experiment": name, "arms": arms, "code": refusal(name, arms)} for name, arms in REFUSED]
    path = Path(__file__).with_name("experiments.json")
    groups = {"assigned": assigned, "refused": refused}
    lines = {name: ",\n  ".join(map(json.dumps, cases)) for name, cases in groups.items()}
    body = ",\n ".join(f'"{name}": [\n  {cases}\n ]' for name, cases in lines.items())
    path.write_text(f'{{\n "format": 1,\n {body}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
