"""What users did with the lists that they were shown: click-through and conversion by bundle release and by arm.

Read from the events of users who agreed to ``analytics``; a list's id says release and arm (xrec_sdk.experiment).
Counted are pairs of a list and an item that was shown (event ``impression``), each once, however often it was clicked;
an answer to what was never said to be shown is left out. Intervals are of 95 %, by users: the delta method for a ratio
of sums (Deng, Knoblich and Lu, KDD 2018), so that a user who sees many lists does not count as many.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from xrec_sdk.experiment import origin_of
from xrec_sdk.sync import Row

from xrec_server.consented import consented

IMPRESSION = "impression"
CLICKS, CONVERSIONS = ("view", "cart", "favorite"), ("purchase",)
MIN_USERS = 20
_Z95 = 1.959964


@dataclass(frozen=True)
class Counts:
    """What one user did within one group of lists."""

    shown: int
    clicked: int
    converted: int


@dataclass(frozen=True)
class Rate:
    """A share of what was shown; ``low`` and ``high`` are the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One group of lists: ``release 3``, or ``rank=new``. Without rates where too few users are in it."""

    group: str
    users: int
    shown: int | None = None
    click_through: Rate | None = None
    conversion: Rate | None = None


@dataclass(frozen=True)
class Difference:
    """An arm against the first of its experiment by name: the difference of the rates."""

    arm: str
    against: str
    click_through: Rate
    conversion: Rate


@dataclass(frozen=True)
class Report:
    """``left_out`` users did not agree to analytics; ``unshown`` answers are to what was never said to be shown."""

    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]
    left_out: int
    unshown: int


async def report_feedback(
    database: str,
    *,
    clicks: Collection[str] = CLICKS,
    conversions: Collection[str] = CONVERSIONS,
    min_users: int = MIN_USERS,
) -> Report:
    """Read a database and return the report; ServerError ``server.database`` where it can't be read.

    Groups of fewer than ``min_users`` users are named and counted, and nothing more is said of them.
    """
    groups: dict[str, list[Counts]] = defaultdict(list)
    left_out = unshown = 0
    async for _, rows in consented(database, "analytics"):
        if rows is None:
            left_out += 1
            continue
        found, missed = counts_of(rows, clicks, conversions)
        unshown += missed
        for group, counts in found.items():
            groups[group].append(counts)
    lines = tuple(_line(group, groups[group], min_users) for group in sorted(groups))
    return Report(lines, _differences(groups, min_users), left_out, unshown)


def counts_of(
    rows: Sequence[Row], clicks: Collection[str], conversions: Collection[str]
) -> tuple[dict[str, Counts], int]:
    """Return what one user did, by group, and how many answers were to what was never said to be shown."""
    done: dict[str, set[tuple[str, str]]] = {name: set() for name in ("shown", "clicked", "converted")}
    for row in rows:
        body = json.loads(row.body)
        if body.get("recommendation_id") is None:
            continue
        pair = (body["recommendation_id"], body["item_id"])
        for name, events in (("shown", (IMPRESSION,)), ("clicked", clicks), ("converted", conversions)):
            if body["event"] in events:
                done[name].add(pair)
    shown = done["shown"]
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for pair in shown:
        for group in _groups(pair[0]):
            for place, name in enumerate(done):
                found[group][place] += pair in done[name]
    unshown = len((done["clicked"] | done["converted"]) - shown)
    return {group: Counts(*counts) for group, counts in found.items()}, unshown


def _groups(recommendation_id: str) -> list[str]:
    release, arm = origin_of(recommendation_id)
    return [f"release {release or 'unknown'}", *([f"{arm.experiment}={arm.name}"] if arm else [])]


def _line(group: str, users: Sequence[Counts], min_users: int) -> Line:
    if len(users) < max(2, min_users):
        return Line(group, len(users))
    shown = sum(one.shown for one in users)
    return Line(group, len(users), shown, *(_interval(*rate_of(users, name)) for name in ("clicked", "converted")))


def rate_of(users: Sequence[Counts], name: str) -> tuple[float, float]:
    """Return the share of what was shown to two users or more that they answered so, and its standard error."""
    shown, count = sum(one.shown for one in users), len(users)
    rate: float = sum(getattr(one, name) for one in users) / shown
    spread = sum((getattr(one, name) - rate * one.shown) ** 2 for one in users)
    return rate, math.sqrt(count / (count - 1) * spread) / shown


def _interval(value: float, error: float) -> Rate:
    return Rate(value, value - _Z95 * error, value + _Z95 * error)


def _differences(groups: Mapping[str, Sequence[Counts]], min_users: int) -> tuple[Difference, ...]:
    arms = sorted(group for group, users in groups.items() if "=" in group and len(users) >= max(2, min_users))
    first: dict[str, str] = {}
    found = []
    for arm in arms:
        against = first.setdefault(arm.partition("=")[0], arm)
        if against != arm:
            rates = [_difference(groups[arm], groups[against], name) for name in ("clicked", "converted")]
            found.append(Difference(arm, against, *rates))
    return tuple(found)


def _difference(users: Sequence[Counts], others: Sequence[Counts], name: str) -> Rate:
    (rate, error), (other, other_error) = rate_of(users, name), rate_of(others, name)
    return _interval(rate - other, math.hypot(error, other_error))


def as_text(report: Report) -> str:
    """Return the report as lines for people."""
    said = []
    for line in report.lines:
        if line.click_through is None or line.conversion is None:
            said.append(f"{line.group:32} {line.users:8,} users: too few to say more")
            continue
        rates = f"click-through {_shown(line.click_through)}   conversion {_shown(line.conversion)}"
        said.append(f"{line.group:32} {line.users:8,} users {line.shown:10,} shown   {rates}")
    for one in report.differences:
        rates = f"click-through {_shown(one.click_through)}   conversion {_shown(one.conversion)}"
        said.append(f"{one.arm} less {one.against.partition('=')[2]}: {rates}")
    said.append(f"{report.left_out:,} users did not agree to analytics")
    said.append(f"{report.unshown:,} answers to what was not said to be shown")
    return "\n".join(said)


def _shown(rate: Rate) -> str:
    return f"{rate.value:.4f} [{rate.low:.4f}, {rate.high:.4f}]"
