"""Say when and where a recommendation is asked for, as the ranker reads it; training and serving both use this."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.errors import UsageError
from xrec_sdk.history import DAY_MS, HOUR_MS, Vocabulary

Context = Mapping[str, "str | float"]

CONTEXT = ("device", "hour", "history_events", "days_since_last_event", "days_since_first_event")
"""The context vector, float32: the device's code (0 unknown), the hour of the day in UTC with its fraction, how many
events the history holds, and how long ago the last and the first of them were."""


def context_vector(at_ms: NDArray[np.int64], device: int, now_ms: int) -> NDArray[np.float32]:
    """Return the context of a call, (5,) float32, from the times of the history's events, oldest first.

    Raises ValueError for an empty history: nothing is known then that a probability could stand on.
    """
    if not len(at_ms):
        raise ValueError("an empty history has no context")
    # An event of the future, from a clock that ran ahead, counts as now.
    since_last = max(now_ms - int(at_ms[-1]), 0) / DAY_MS
    since_first = max(now_ms - int(at_ms[0]), 0) / DAY_MS
    hour = now_ms % DAY_MS / HOUR_MS
    return np.array((device, hour, len(at_ms), since_last, since_first), dtype=np.float32)


def check_context(given: Context, vocabulary: Vocabulary) -> tuple[int | None, float | None]:
    """Return the device's code and the hour that an app gave, None for what it left out.

    A device that the bundle does not know is code 0, as in the history. Raises UsageError ``usage.context``.
    """
    if not isinstance(given, Mapping) or not set(given) <= {"device", "hour"}:
        raise UsageError("usage.context", f"context is {given!r}; expected {{'device': name, 'hour': 0 to 24}}")
    device, hour = given.get("device"), given.get("hour")
    if device is not None and not isinstance(device, str):
        raise UsageError("usage.context", f"the device of context is {device!r}; expected a name")
    if hour is not None and (isinstance(hour, (bool, str)) or not 0 <= hour < 24):
        raise UsageError("usage.context", f"the hour of context is {hour!r}; expected 0 up to 24, in UTC")
    code = None if device is None else {name: code for code, name in enumerate(vocabulary.devices, 1)}.get(device, 0)
    return code, None if hour is None else float(hour)
