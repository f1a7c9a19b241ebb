"""Say what preparation read, kept and dropped, by source and by reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from xrec_sdk.errors import DataError


@dataclass(frozen=True)
class SourceQuality:
    """One source's rows; ``read`` is ``kept`` plus everything in ``dropped`` (reason -> rows)."""

    name: str
    files: int
    empty_files: int
    read: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityReport:
    """What came of every row. ``notes`` counts what was changed and not dropped, such as merged identities."""

    sources: tuple[SourceQuality, ...]
    notes: Mapping[str, int] = field(default_factory=dict)
    items: SourceQuality | None = None

    @property
    def read(self) -> int:
        """Rows read from all event sources."""
        return sum(source.read for source in self.sources)

    @property
    def kept(self) -> int:
        """Rows kept from all event sources."""
        return sum(source.kept for source in self.sources)

    def check(self) -> None:
        """Raise DataError ``data.accounting`` where a source's rows don't add up."""
        for source in (*self.sources, *((self.items,) if self.items else ())):
            dropped = sum(source.dropped.values())
            if source.read != source.kept + dropped:
                raise DataError(
                    "data.accounting",
                    f"{source.name}: {source.read} rows read, but {source.kept} kept and {dropped} dropped",
                )

    def to_json(self) -> dict[str, Any]:
        """Return the report as quality.json holds it."""
        return {"format": 1, **asdict(self)}

    def to_markdown(self) -> str:
        """Return the report as quality.md holds it: one table of rows, one of reasons."""
        every = (*self.sources, *((self.items,) if self.items else ()))
        lines = ["# Data quality", "", "| source | files | empty files | rows read | kept | dropped |"]
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
        for source in every:
            dropped = sum(source.dropped.values())
            lines.append(
                f"| {source.name} | {source.files} | {source.empty_files} | {source.read:,} | {source.kept:,} "
                f"| {dropped:,} |"
            )
        lines += ["", "| source | dropped because | rows | share |", "| --- | --- | ---: | ---: |"]
        for source in every:
            for reason, rows in sorted(source.dropped.items(), key=lambda pair: (-pair[1], pair[0])):
                lines.append(f"| {source.name} | {reason} | {rows:,} | {rows / source.read:.2%} |")
        if self.notes:
            lines += ["", "| changed, not dropped | count |", "| --- | ---: |"]
            lines += [f"| {name} | {count:,} |" for name, count in sorted(self.notes.items())]
        return "\n".join(lines) + "\n"
