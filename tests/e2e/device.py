"""A device in a process of its own: it does what comes as a JSON line on its input, and answers with one.

python tests/e2e/device.py PROFILE URL KEY_FOLDER SUBJECT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from xrec_sdk.errors import XrecError
from xrec_sdk.profile import Profile
from xrec_sdk.sync_client import SyncClient, Timing
from xrec_sdk.sync_merge import digest_text
from xrec_sdk.sync_store import SyncStore
from xrec_server.development import make_token

TIMING = Timing(wait_s=2, gather_s=0.02, look_every_s=0.2, first_delay_s=0.05, longest_delay_s=0.4)


def main() -> None:
    """Serve until the input ends."""
    path, url, keys, subject = sys.argv[1:]
    profile = Profile(path)
    for purpose in ("personalise", "sync"):
        profile.set_consent(purpose, True)
    client = SyncClient(profile, url, lambda: make_token(Path(keys), subject), timing=TIMING)
    for line in sys.stdin:
        try:
            said = answer(profile, client, json.loads(line))
        except XrecError as refused:
            said = {"refused": refused.code}
        print(json.dumps(said), flush=True)
    client.close()
    profile.close()


def answer(profile: Profile, client: SyncClient, asked: dict[str, Any]) -> Any:
    """Do one thing and return what is to be said of it."""
    if asked["do"] == "record":
        now_ms = time.time_ns() // 1_000_000
        return [profile.record("view", f"{asked['item']}-{place}", "phone", now_ms) for place in range(asked["count"])]
    if asked["do"] == "forget":
        return profile.forget(**asked.get("named", {}))
    if asked["do"] == "consent":
        return profile.set_consent(asked["purpose"], asked["granted"])
    status, standing = client.status(), SyncStore(profile).standing()
    events = [[event.id, event.at_ms, event.item_id] for event in profile.events()]
    digest, dead = digest_text(standing.digest), status.dead
    said = {"state": status.state, "queued": status.queued, "error": status.last_error, "epoch": standing.epoch}
    said |= {"consent": profile.consent(), "diverged": standing.is_diverged}
    return {**said, "digest": digest, "dead": dead, "events": events}


if __name__ == "__main__":
    main()
