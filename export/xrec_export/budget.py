"""What a release may cost: read budget.toml, hold what was measured against it, say what to change where it misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from xrec_sdk.errors import DataError, GateError
from xrec_trainer import toml

from xrec_export.parity import TOP, Parity, Tolerance
from xrec_export.speed import Speed

Value = int | float | str | None
MAX_THREADS = 256


@dataclass(frozen=True)
class Budget:
    """The limits of a release; a limit of None is not asked for, and what it bounds is not measured.

    ``threads`` are onnxruntime's while it is measured. ``max_bytes`` is of the whole folder, ``max_cold_start_ms`` of
    import to first answer in a fresh process, ``max_recommend_p99_ms`` of recommend(k=10) asked again and
    ``max_after_event_p99_ms`` after a new event, ``max_anonymous_bytes`` of the memory of a process that has answered,
    ``max_ndcg_loss`` relative to the float model, ``min_overlap`` of its top 10; ``operators`` are all that may occur.
    """

    threads: int = 1
    max_bytes: int | None = None
    max_cold_start_ms: float | None = None
    max_recommend_p99_ms: float | None = None
    max_after_event_p99_ms: float | None = None
    max_anonymous_bytes: int | None = None
    max_ndcg_loss: float | None = None
    min_overlap: float | None = None
    max_opset: int | None = None
    operators: tuple[str, ...] | None = None

    @property
    def needs_speed(self) -> bool:
        """Whether a limit is set that only a process of its own can be measured against."""
        limits = (self.max_cold_start_ms, self.max_recommend_p99_ms, self.max_after_event_p99_ms)
        return any(limit is not None for limit in (*limits, self.max_anonymous_bytes))

    def with_quality(self, other: Tolerance) -> Budget:
        """Return the budget with the limits of ``other`` where it says nothing of quality."""
        overlap, loss = self.min_overlap, self.max_ndcg_loss
        return replace(
            self,
            min_overlap=other.min_overlap if overlap is None else overlap,
            max_ndcg_loss=other.max_ndcg_loss if loss is None else loss,
        )


@dataclass(frozen=True)
class Line:
    """One limit and what was found; ``advice`` is what to change where it is missed."""

    name: str
    found: Value
    limit: Value
    passes: bool
    advice: str


class BudgetMissed(GateError):
    """A release misses its budget, code ``gate.budget``; ``lines`` holds every line, missed or not."""

    def __init__(self, lines: Sequence[Line]) -> None:
        missed = [line for line in lines if not line.passes]
        said = "; ".join(
            f"{line.name} is {text(line.found)}, {text(line.limit)} is asked: {line.advice}" for line in missed
        )
        super().__init__("gate.budget", said)
        self.lines = tuple(lines)

    def __reduce__(self) -> tuple[type[BudgetMissed], tuple[tuple[Line, ...]]]:  # type: ignore[override]
        return type(self), (self.lines,)


def read_budget(path: Path) -> Budget:
    """Read budget.toml; raise DataError ``data.budget`` where it can't be read or a line is not as described."""
    try:
        found = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError("data.budget", f"{path} can't be read as TOML: {cause}") from cause
    known = {field.name for field in fields(Budget)}
    if unknown := sorted(found.keys() - known):
        raise DataError("data.budget", f"{path} has {', '.join(unknown)}; a budget knows {', '.join(sorted(known))}")
    for name, value in found.items():
        if not _is_right(name, value):
            raise DataError(
                "data.budget", f"{path}: {name} is {value!r}; expected {_EXPECTED.get(name, 'a number above 0')}"
            )
    if "operators" in found:
        found["operators"] = tuple(found["operators"])
    return Budget(**found)


_EXPECTED = {
    "threads": f"a whole number from 1 to {MAX_THREADS}",
    "max_bytes": "a whole number above 0",
    "max_anonymous_bytes": "a whole number above 0",
    "max_opset": "a whole number above 0",
    "min_overlap": "a number from 0 to 1",
    "max_ndcg_loss": "a number from 0 to 1",
    "operators": "a list of names of operators",
}


def _is_right(name: str, value: object) -> bool:
    if name == "operators":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if _EXPECTED.get(name, "").startswith("a whole"):
        return is_whole and isinstance(value, int) and 0 < value <= (MAX_THREADS if name == "threads" else 1 << 53)
    if not (is_whole or isinstance(value, float)) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= 1 if name in _EXPECTED else 0 < value < float("inf")


def lines(
    budget: Budget, parity: Parity, sizes: Mapping[str, int], used: Sequence[str], opset: int, speed: Speed | None
) -> list[Line]:
    """Return a line for each limit that is set; ``sizes`` are of every file of the folder, ``used`` the operators."""
    found = [*_size_lines(budget, sizes), *_graph_lines(budget, used, opset), *_quality_lines(budget, parity)]
    return found if speed is None else [*found, *_speed_lines(budget, speed)]


def check(found: Sequence[Line]) -> None:
    """Raise BudgetMissed where a line is missed."""
    if not all(line.passes for line in found):
        raise BudgetMissed(found)


def table(found: Sequence[Line]) -> str:
    """Return the lines as a plain table, what to change below it."""
    rows = [
        ("limit", "found", "asked", ""),
        *((line.name, text(line.found), text(line.limit), "ok" if line.passes else "MISSED") for line in found),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    said = [
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {limit:>{widths[2]}}  {state}".rstrip()
        for name, value, limit, state in rows
    ]
    return "\n".join([*said, *(f"{line.name}: {line.advice}" for line in found if not line.passes)])


def to_manifest(found: Sequence[Line], speed: Speed | None) -> dict[str, object]:
    """Return the lines and what they were measured on, as the certificate holds them."""
    kept = [{name: getattr(line, name) for name in ("name", "found", "limit", "passes")} for line in found]
    return {"lines": kept, "measured": None if speed is None else asdict(speed)}


def text(value: Value) -> str:
    """Return a value as people read it."""
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _at_most(name: str, found: float | None, limit: float | None, advice: str) -> list[Line]:
    if limit is None:
        return []
    if found is None:
        return [Line(name, None, limit, False, "this system does not say; measure on Linux, or leave the line out")]
    return [Line(name, found, limit, found <= limit, advice)]


def _size_lines(budget: Budget, sizes: Mapping[str, int]) -> list[Line]:
    largest = max(sizes, key=lambda name: sizes[name], default="items.bin")
    advice = (
        f"{largest} has {sizes.get(largest, 0):,} of them; a smaller width, fewer items (a higher min_count) or "
        "shorter entries make it smaller"
    )
    return _at_most("bytes of the folder", sum(sizes.values()), budget.max_bytes, advice)


def _graph_lines(budget: Budget, used: Sequence[str], opset: int) -> list[Line]:
    found = _at_most(
        "opset", opset, budget.max_opset, "an older runtime can't load it; raise max_opset with the runtime"
    )
    if budget.operators is not None:
        others = ", ".join(sorted({*used} - {*budget.operators}))
        advice = "take an encoder without them (--setting encoder=...), or allow them where the runtime has them"
        found.append(Line("operators beyond the list", others or "none", "none", not others, advice))
    return found


def _quality_lines(budget: Budget, parity: Parity) -> list[Line]:
    advice = "train more quantized_epochs, or a larger width"
    found = _at_most(f"relative loss of NDCG@{TOP}", parity.ndcg_loss, budget.max_ndcg_loss, advice)
    least = budget.min_overlap
    if least is not None:
        found.append(Line(f"overlap of the top {TOP}", parity.overlap, least, parity.overlap >= least, advice))
    return found


def _speed_lines(budget: Budget, speed: Speed) -> list[Line]:
    smaller = "fewer items, a smaller width, a shorter max_history or fewer layers"
    of_imports = f"{speed.import_ms:.0f} ms of it go to imports; the rest shrinks with {smaller}"
    added = (
        "" if speed.anonymous_added_bytes is None else f"{speed.anonymous_added_bytes:,} of them came with the bundle; "
    )
    measured = (
        ("cold start, ms", speed.cold_start_ms, budget.max_cold_start_ms, of_imports),
        ("recommend again, p99 ms", speed.again_p99_ms, budget.max_recommend_p99_ms, f"it takes {smaller}"),
        (
            "recommend after an event, p99 ms",
            speed.after_event_p99_ms,
            budget.max_after_event_p99_ms,
            f"it takes {smaller}",
        ),
        ("anonymous memory, bytes", speed.anonymous_bytes, budget.max_anonymous_bytes, f"{added}it takes {smaller}"),
    )
    return [line for one in measured for line in _at_most(*one)]
