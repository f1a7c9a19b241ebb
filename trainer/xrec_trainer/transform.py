"""Clean events, once for DuckDB, PySpark and every other engine that narwhals drives.

Each rule takes a lazy frame and gives it back with a column ``dropped``: the reason, or null where the row stays.
The columns are those of events.parquet and ``source`` (its name) and ``problem`` (the reader's reason, or null).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import narwhals as nw
from xrec_sdk.history import DAY_MS

from xrec_trainer.sources import Clean

Frame = nw.LazyFrame[Any]
Rule = Callable[[Frame], Frame]
Keep = Callable[[Frame], Frame]

MINUTE_MS = 60_000
ORDER = (
    "at_ms",
    "item_id",
    "event",
    "device",
    "query",
    "value",
    "source",
    "session_id",
    "position",
    "recommendation_id",
)
SAME = ("item_id", "event", "at_ms", "device", "query", "value")


def apply_rules(frame: Frame, rules: list[Rule], keep: Keep) -> tuple[Frame, Counter[tuple[str, str]]]:
    """Apply ``rules`` in order; returns what stays and the rows dropped by (source, reason).

    ``keep`` computes a frame once and gives it back for reuse: a file with DuckDB, a cache with PySpark.
    """
    dropped: Counter[tuple[str, str]] = Counter()
    for rule in rules:
        marked = keep(rule(frame))
        gone = marked.filter(~nw.col("dropped").is_null()).group_by("source", "dropped").agg(nw.len().alias("rows"))
        rows = gone.collect("pyarrow")
        for source, reason, count in zip(rows["source"], rows["dropped"], rows["rows"], strict=True):
            dropped[str(source), str(reason)] += int(count)
        frame = marked.filter(nw.col("dropped").is_null()).drop("dropped")
    return frame, dropped


def rules_of(clean: Clean) -> list[Rule]:
    """Return the rules that ``clean`` asks for, in the order in which they apply."""
    rules: list[Rule] = [lambda frame: drop_impossible(frame, clean)]
    if clean.max_events_per_day is not None:
        most = clean.max_events_per_day
        rules.append(lambda frame: drop_bots(frame, most))
    keeps_duplicates = clean.duplicates == "keep"
    rules.append(lambda frame: add_sessions(frame, clean.session_minutes, keeps_duplicates=keeps_duplicates))
    if clean.repeated_views == "drop":
        rules.append(drop_repeated_views)
    return rules


def merge_identity(frame: Frame, identity: Frame) -> Frame:
    """Replace anonymous ids by their account; ``identity`` has anonymous_id (unique) and account_id."""
    merged = frame.join(identity, left_on="user_id", right_on="anonymous_id", how="left")
    account = nw.coalesce(nw.col("account_id"), nw.col("user_id")).alias("user_id")
    return merged.with_columns(account).drop("account_id")


def drop_impossible(frame: Frame, clean: Clean) -> Frame:
    """Mark what the reader found wrong, and times and values outside the declared bounds (inclusive)."""
    reason = nw.col("problem")
    at_ms, value = nw.col("at_ms"), nw.col("value")
    bounds = [
        (clean.min_at_ms, at_ms < (clean.min_at_ms or 0), "before_min_time"),
        (clean.max_at_ms, at_ms > (clean.max_at_ms or 0), "after_max_time"),
        (clean.min_value, value < (clean.min_value or 0.0), "value_below_min"),
        (clean.max_value, value > (clean.max_value or 0.0), "value_above_max"),
    ]
    for bound, is_outside, name in bounds:
        if bound is not None:
            reason = nw.when(reason.is_null() & is_outside).then(nw.lit(name)).otherwise(reason)
    return frame.with_columns(reason.alias("dropped")).drop("problem", "broken")


def drop_bots(frame: Frame, max_events_per_day: int) -> Frame:
    """Mark every event of a user with more than ``max_events_per_day`` on any UTC day."""
    days = frame.select("user_id", (nw.col("at_ms") // DAY_MS).alias("day"))
    busy = days.group_by("user_id", "day").agg(nw.len().alias("rows")).filter(nw.col("rows") > max_events_per_day)
    bots = busy.group_by("user_id").agg(nw.len().alias("bot_days"))
    marked = frame.join(bots, on="user_id", how="left")
    reason = nw.when(~nw.col("bot_days").is_null()).then(nw.lit("bot"))
    return marked.with_columns(reason.alias("dropped")).drop("bot_days")


def add_sessions(frame: Frame, session_minutes: float, *, keeps_duplicates: bool = False) -> Frame:
    """Fill session_id where the source has none, and mark events delivered twice, in one sort by user.

    A session ends after ``session_minutes`` without an event; its id is ``user_id:`` and its number. A duplicate is an
    event with the same user, item, event, time, device, query and value as the one before it in that sort; it is zero
    milliseconds away from it, so it moves no session.
    """
    before = {name: nw.col(name).shift(1).over("user_id", order_by=ORDER) for name in SAME}
    frame = frame.with_columns(*(shifted.alias(f"before_{name}") for name, shifted in before.items()))
    starts = nw.col("before_at_ms").is_null() | (
        nw.col("at_ms") - nw.col("before_at_ms") > int(session_minutes * MINUTE_MS)
    )
    same = ~nw.col("before_at_ms").is_null()
    for name in SAME:
        now, then = nw.col(name), nw.col(f"before_{name}")
        same = same & ((now == then).fill_null(False) | (now.is_null() & then.is_null()))
    if keeps_duplicates:
        same = nw.lit(False)
    reason = nw.when(same).then(nw.lit("duplicate"))
    frame = frame.with_columns(
        nw.when(starts).then(nw.lit(1)).otherwise(nw.lit(0)).alias("starts"), reason.alias("dropped")
    ).drop(*(f"before_{name}" for name in SAME))
    number = nw.col("starts").cum_sum().over("user_id", order_by=ORDER)
    frame = frame.with_columns(number.cast(nw.Int64()).cast(nw.String()).alias("number"))
    made = nw.concat_str(nw.col("user_id"), nw.lit(":"), nw.col("number"))
    return frame.with_columns(nw.coalesce(nw.col("session_id"), made).alias("session_id")).drop("starts", "number")


def drop_repeated_views(frame: Frame) -> Frame:
    """Mark every view of an item but the first in a session."""
    keys = ("user_id", "session_id", "item_id", "event")
    order = tuple(name for name in ORDER if name not in keys)
    turn = nw.col("at_ms").cum_count().over(*keys, order_by=order)
    frame = frame.with_columns(turn.alias("turn"))
    is_repeat = (nw.col("event") == "view") & ~nw.col("item_id").is_null() & (nw.col("turn") > 1)
    return frame.with_columns(nw.when(is_repeat).then(nw.lit("repeated_view")).alias("dropped")).drop("turn")


def standardize_value(frame: Frame) -> Frame:
    """Replace value by its distance from the mean of its event's values, in their standard deviations."""
    value = nw.col("value")
    spread = value.std(ddof=0).over("event")
    z = (value - value.mean().over("event")) / spread
    return frame.with_columns(nw.when(spread > 0).then(z).otherwise(value - value).alias("value"))
