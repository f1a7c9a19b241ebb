"""Record what a device's rules were asked and what they said, over simulated histories, for other languages to repeat.

python tests/sync/recorded.py --histories 20 --seed 1     # one call a line, as JSON
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent))
from simulator import history
from xrec_sdk import sync_device
from xrec_sdk.sync import LIMITS, Limits, Replica, Standing
from xrec_sdk.sync_merge import digest_text

RULES = (
    *("opened", "record", "consent_change", "next_push", "pushed", "refused"),
    *("apply_page", "lease_ended", "registered", "events"),
)


def as_json(value: object) -> str:
    """Return a value of the rules as JSON: dataclasses by their fields, a digest as it is sent, rows as a list."""
    return json.dumps(value, default=_fields, ensure_ascii=False, separators=(",", ":"))


def _fields(value: Any) -> Any:
    if isinstance(value, Standing):
        return {**vars(value), "digest": digest_text(value.digest)}
    if isinstance(value, Limits):
        return {name: bound for name, bound in vars(value).items() if bound != getattr(LIMITS, name)}
    if isinstance(value, Replica):
        return {"standing": value.standing, "rows": list(value.rows.values()), "queue": list(value.queue)}
    return dict(value) if isinstance(value, Mapping) else vars(value)


@contextmanager
def recorded(keep: Callable[[str, str], None]) -> Iterator[None]:
    """Give ``keep`` the rule and the call, as JSON, of everything that the simulator asks of a device's rules."""
    with patch.multiple(sync_device, **{name: _watched(name, keep) for name in RULES}):
        yield


def _watched(name: str, keep: Callable[[str, str], None]) -> Callable[..., Any]:
    rule = getattr(sync_device, name)
    signature = inspect.signature(rule)

    def asked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # The replica as it now is: the simulator may change its own.
        given = as_json(bound.arguments)
        try:
            said = rule(*args, **kwargs)
        except sync_device.SyncError as refused:
            keep(name, f'{{"rule":"{name}","given":{given},"error":"{refused.code}"}}')
            raise
        keep(name, f'{{"rule":"{name}","given":{given},"said":{as_json(said)}}}')
        return said

    return asked


def shortest(seeds: range, most: int) -> list[str]:
    """Return the shortest call of each kind: of one rule, that changes the same things; of at most ``most`` letters."""
    found: dict[str, str] = {}

    def keep(_: str, line: str) -> None:
        if len(line) <= most:
            kind = _kind(json.loads(line))
            found[kind] = min(line, found.get(kind, line), key=len)

    with recorded(keep):
        for seed in seeds:
            history(seed)
    return [line for _, line in sorted(found.items())]


def _kind(call: dict[str, Any]) -> str:
    """Say what tells a call from another: rule, code, which fields and which kinds of rows and operations changed."""
    given, said = call["given"], call.get("said")
    answer = given.get("answer", given.get("page", {}))
    parts: list[Any] = [call["rule"], call.get("error"), answer.get("code")]
    if call["rule"] == "events":
        parts.append([bool(said), any(one["op"]["kind"] == "erase" for one in given["replica"]["queue"])])
        return json.dumps(parts)
    changes = said[1] if call["rule"] == "next_push" and said else said
    if not changes:
        return json.dumps(parts)
    was, now = given["replica"]["standing"], changes["standing"]
    clocks = ("hlc", "contact_ms", "contact_local_ms", "digest", "cursor", "checked", "last_dseq", "sent", "acked")
    parts.append([name for name in now if name not in clocks and now[name] != was[name]])
    parts.append(sorted({row["kind"] for row in changes["put_rows"]} | {key[0] for key in changes["drop_rows"]}))
    parts.append(sorted({one["op"]["kind"] for one in changes["put_queue"]}))
    parts.append([bool(changes["drop_queue"]), sorted({one["code"] for one in changes["dead"]})])
    return json.dumps(parts)


def main() -> None:
    """Write every call of some histories to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with recorded(lambda _, line: print(line)):
        for seed in range(given.seed, given.seed + given.histories):
            history(seed)


if __name__ == "__main__":
    main()
