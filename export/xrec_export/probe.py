"""What a fresh process says of a bundle: how long until the first answer, each later answer's time, its memory.

Run by speed.py as ``python -m xrec_export.probe BUNDLE PROFILE KEY THREADS CALLS``; it imports what an app imports, and
nothing before the clock runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

ANSWERS = 10
WARM_UP = 20


def main(bundle: str, profile: str, key: str, threads: int, calls: int) -> dict[str, object]:
    """Open, answer, and return the times in milliseconds and the anonymous memory in bytes (None where not known)."""
    begin = time.perf_counter()
    import numpy  # noqa: F401
    import onnxruntime  # noqa: F401
    from xrec_sdk.recommender import Recommender

    imported = time.perf_counter()
    bare = anonymous_bytes()
    opening = time.perf_counter()
    recommender = Recommender(bundle, profile, trusted_keys=[key], num_threads=threads)
    recommender.recommend(ANSWERS)
    answered = time.perf_counter()
    import_ms, open_ms = (1e3 * part for part in (imported - begin, answered - opening))
    event, item = recommender.bundle.manifest.vocabulary.events[0], recommender.bundle.ids.item_id(0)
    again = _times(calls, recommender.recommend, lambda: None)
    after_event = _times(calls, recommender.recommend, lambda: recommender.record(event, item, device="probe"))
    after = anonymous_bytes()
    return {
        "cold_start_ms": import_ms + open_ms,
        "import_ms": import_ms,
        "again_ms": again,
        "after_event_ms": after_event,
        "anonymous_bytes": after,
        "anonymous_added_bytes": None if after is None or bare is None else after - bare,
    }


def _times(calls: int, ask: Callable[[int], object], before: Callable[[], object]) -> list[float]:
    times = []
    for call in range(calls + WARM_UP if calls else 0):
        before()
        begin = time.perf_counter()
        ask(ANSWERS)
        if call >= WARM_UP:
            times.append(1e3 * (time.perf_counter() - begin))
    return times


def anonymous_bytes() -> int | None:
    """Return the memory of this process that no file backs, None where the system (not Linux) does not say."""
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return None
    return 1024 * int(fields["Anonymous"].split()[0])


if __name__ == "__main__":
    said = main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    sys.stdout.write(json.dumps(said) + "\n")
