"""Divide a log into what is learned from, what settings are chosen on, and what is reported."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.errors import DataError
from xrec_sdk.history import DAY_MS, Vocabulary
from xrec_sdk.query import BUCKETS

from xrec_trainer.cases import Cases, by_time, leave_one_out
from xrec_trainer.config import FitConfig
from xrec_trainer.dataset import Catalogue, Log, RawLog, build_catalogue, build_log


@dataclass(frozen=True)
class Study:
    """A log, its catalogue, where training ends for each user, and the cases of each task."""

    catalogue: Catalogue
    log: Log
    train_end: NDArray[np.int64]
    validation: dict[str, Cases]
    test: dict[str, Cases]

    @property
    def train_mask(self) -> NDArray[np.bool_]:
        """Events on items that may be learned from, (E,) bool."""
        return (np.arange(len(self.log)) < self.train_end[self.log.user]) & (self.log.item >= 0)

    @property
    def main_task(self) -> str:
        """The task that early stopping looks at: new items where there are such cases apart, else all."""
        return "new" if "new" in self.validation and len(self.validation["new"]) else "all"


def check_can_choose(study: Study, what: str) -> None:
    """Raise DataError ``data.no_cases`` where validation asks nothing that ``what`` could be chosen on."""
    if not len(study.validation[study.main_task]):
        raise DataError(
            "data.no_cases",
            f"no user has a target to choose {what} on; with --split leave-one-out a user needs three events or more, "
            "with --split time lengthen --setting validation_days",
        )


def make_study(raw: RawLog, config: FitConfig) -> Study:
    """Split a log as the configuration asks; the catalogue and its order come from the training part alone."""
    unknown = sorted(set(config.targets) - set(raw.event_names))
    if unknown:
        raise DataError(
            "data.target_missing",
            f"no event is named {', '.join(unknown)}; the data has {', '.join(raw.event_names)}; choose with --target",
        )
    searches = {raw.event_names[code] for code in np.unique(raw.event[raw.item < 0])}
    if searches & set(config.targets):
        raise DataError(
            "data.target_search",
            f"{', '.join(sorted(searches & set(config.targets)))} has events without an item, which can't be a target; "
            "name another with --target",
        )
    if (config.cold_share or config.new_items) and not raw.has_content.any():
        raise DataError(
            "data.no_content",
            "no item has a title, category, price or attribute, so none can be known by its content alone; give them "
            "with [items] in sources.toml, or leave out --setting cold_share and new_items",
        )
    vocabulary = Vocabulary(
        tuple(raw.event_names),
        tuple(raw.device_names),
        max_history=config.max_history,
        distinct_items=config.distinct_items,
        query_buckets=BUCKETS if config.queries else 0,
    )
    if config.split == "time":
        return _by_time(raw, config, vocabulary)
    return _leave_one_out(raw, config, vocabulary)


def _by_time(raw: RawLog, config: FitConfig, vocabulary: Vocabulary) -> Study:
    end_ms = int(raw.at_ms.max()) + 1
    test_ms = end_ms - int(config.test_days * DAY_MS)
    validation_ms = test_ms - int(config.validation_days * DAY_MS)
    if validation_ms <= raw.at_ms.min():
        days = (end_ms - int(raw.at_ms.min())) / DAY_MS
        raise DataError("data.too_short", f"the log covers {days:.1f} days; lower --test-days and --validation-days")
    held_out = _held_out(raw, raw.at_ms < validation_ms, config)
    raw = raw.only(~raw.on(held_out) | (raw.at_ms >= test_ms))
    learned_ms = {"validation": validation_ms, "test": test_ms, "end": end_ms}[config.learns_until]
    known = raw.at_ms < learned_ms
    catalogue, row_of = _catalogue(raw, known, held_out, config)
    log, targets = build_log(raw, row_of, len(catalogue), vocabulary), frozenset(vocabulary.event_codes(config.targets))
    train_end = log.user_start[:-1] + np.bincount(log.user[log.at_ms < learned_ms], minlength=len(raw.users))

    def tasks(start_ms: int, until_ms: int) -> dict[str, Cases]:
        return {
            "all": by_time(log, start_ms, until_ms, targets, new_only=False),
            "new": by_time(log, start_ms, until_ms, targets, new_only=True),
        }

    validation, test = tasks(validation_ms, test_ms), tasks(test_ms, end_ms)
    if not len(validation["all"]) or not len(test["all"]):
        raise DataError(
            "data.no_cases",
            f"{len(validation['all'])} users have a target in the validation period and {len(test['all'])} in the test "
            "period; one or more is needed in each: lengthen --setting validation_days and test_days, or cut the log's "
            "thin end with [clean] max_at_ms in sources.toml",
        )
    return Study(catalogue, log, train_end, validation, test)


def _leave_one_out(raw: RawLog, config: FitConfig, vocabulary: Vocabulary) -> Study:
    held_out = _held_out(raw, np.ones(len(raw.user), dtype=np.bool_), config)
    raw = raw.only(~raw.on(held_out) | _closes_a_history(raw, held_out))
    catalogue, row_of = _catalogue(raw, ~raw.on(held_out), held_out, config)
    log, targets = build_log(raw, row_of, len(catalogue), vocabulary), frozenset(vocabulary.event_codes(config.targets))
    validation, test = (leave_one_out(log, targets, back=back, leaves_out_seen=config.filter_seen) for back in (2, 1))
    train_end = log.user_start[1:].copy()
    for cases in {"validation": [validation, test], "test": [test], "end": []}[config.learns_until]:
        first_asked = log.user_start[cases.user] + np.diff(cases.history_offsets)
        train_end[cases.user] = np.minimum(train_end[cases.user], first_asked)
    return Study(catalogue, log, train_end, {"all": validation}, {"all": test})


def _held_out(raw: RawLog, known: NDArray[np.bool_], config: FitConfig) -> NDArray[np.bool_]:
    """Draw the ``cold_share`` of the items that would be learned from ``known`` events and have content, (items,)."""
    events = np.bincount(raw.item[known & (raw.item >= 0)], minlength=len(raw.item_ids))
    able = np.flatnonzero((events >= _min_count(config)) & raw.has_content) if config.cold_share else np.zeros(0, int)
    held_out = np.zeros(len(raw.item_ids), dtype=np.bool_)
    drawn = np.random.default_rng(config.seed).permutation(able)[: round(config.cold_share * len(able))]
    held_out[drawn] = True
    return held_out


def _closes_a_history(raw: RawLog, held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which events are the last of a user with two others or more on items that are not held out, (events,)."""
    others = np.bincount(raw.user[~raw.on(held_out)], minlength=len(raw.users))
    is_last: NDArray[np.bool_] = np.diff(raw.user, append=-1) != 0
    return is_last & np.asarray(others[raw.user] >= 2)


def _catalogue(
    raw: RawLog, known: NDArray[np.bool_], held_out: NDArray[np.bool_], config: FitConfig
) -> tuple[Catalogue, NDArray[np.int32]]:
    cold = held_out | raw.has_content if config.new_items else held_out
    return build_catalogue(raw, known, cold, min_count=_min_count(config), half_life_days=config.half_life_days)


def _min_count(config: FitConfig) -> int:
    return config.min_count if config.split == "time" else 1
