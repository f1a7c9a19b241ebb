"""Two devices that hold the same events and the same bundle recommend the same, in whatever order the events came."""

from __future__ import annotations

import json
import random

import pytest
from xrec_sdk import Recommender, sync_device
from xrec_sdk.profile import Profile
from xrec_sdk.sync import Changes, Head, Hlc, Page, Row
from xrec_sdk.sync_merge import digest_of, digest_text
from xrec_sdk.sync_store import SyncStore

NOW_MS = 1_795_000_000_000
HOUR_MS = 3_600_000


def rows_of(luck, count):
    """Return rows of several devices, with ties in time, late claims and items that the bundle does not know."""
    rows = []
    for seq in range(1, count + 1):
        at_ms = NOW_MS - HOUR_MS * luck.randint(0, 60)
        id, item_id = f"{luck.getrandbits(48):012x}", f"sku-{luck.randint(0, 310)}"
        event, device = luck.choice(("view", "purchase", "wished")), luck.choice(("phone", "pc", "watch"))
        body = {"id": id, "at_ms": at_ms, "event": event, "item_id": item_id, "device": device}
        order_ms = at_ms if luck.random() < 0.8 else NOW_MS - luck.randint(0, 1_000)
        rows.append(
            Row(seq, "event", id, 1, Hlc(NOW_MS, seq), luck.choice("abc"), seq, order_ms, NOW_MS, json.dumps(body))
        )
    return rows


def arrive(profile, rows):
    """Let rows come as the pages of the server that they stand for, cut as chance has it."""
    local, head = SyncStore(profile), Head(seq=len(rows))
    standing = local.replica().standing
    after, held = standing.cursor, [row for row in rows if row.seq <= standing.cursor]
    end = rows[-1].seq
    page = Page(head, NOW_MS, 0, after, tuple(rows[len(held) :]), end, False, digest_text(digest_of(rows)))
    local.change(lambda replica: sync_device.apply_page(replica, page, NOW_MS))


def listed(made):
    asked = [made.recommend(12, filter_seen=filter_seen, explain=True) for filter_seen in (True, False)]
    return [(item.item_id, item.score, item.reasons) for one in asked for item in one]


@pytest.mark.parametrize("seed", range(8))
def test_the_same_events_in_any_order_give_the_same_list(shared_bundle, seed):
    luck = random.Random(seed)
    rows = rows_of(luck, luck.randint(2, 80))
    found = []
    for is_shuffled in (False, True):
        profile = Profile(":memory:", clock_ms=lambda: NOW_MS)
        with Recommender(
            shared_bundle.folder, profile, trusted_keys=[shared_bundle.key], clock_ms=lambda: NOW_MS
        ) as made:
            for purpose in ("personalise", "sync"):
                made.set_consent(purpose, True)
            if is_shuffled:
                # The order of arrival is the server's seq, so another order is another server's: the same events.
                mixed = luck.sample(rows, len(rows))
                cuts = sorted(luck.sample(range(1, len(rows)), min(3, len(rows) - 1)))
                mixed = [row.__class__(**{**vars(row), "seq": seq}) for seq, row in enumerate(mixed, start=1)]
                for cut in (*cuts, len(mixed)):
                    arrive(profile, mixed[:cut])
                    listed(made)  # what is read between must leave no trace
            else:
                arrive(profile, rows)
            assert len(profile.events()) == len(rows) and not SyncStore(profile).standing().is_diverged
            found.append(listed(made))
    assert found[0] == found[1] and len(found[0]) == 24


def test_an_event_of_ones_own_is_ranked_alike_before_and_after_it_came_back(shared_bundle):
    profile = Profile(":memory:", clock_ms=lambda: NOW_MS)
    with Recommender(shared_bundle.folder, profile, trusted_keys=[shared_bundle.key], clock_ms=lambda: NOW_MS) as made:
        for purpose in ("personalise", "sync"):
            made.set_consent(purpose, True)
        for row in (5, 9, 40):
            made.record("view", f"sku-{row}", device="phone", at_ms=NOW_MS - 1000 * row)
        before, mark = listed(made), profile.read()[0]
        local = SyncStore(profile)
        own = [one.op for one in local.replica().queue if one.op.kind == "event"]
        rows = [
            Row(seq, "event", op.id, 1, op.hlc, "me", op.dseq, json.loads(op.body)["at_ms"], NOW_MS, op.body)
            for seq, op in enumerate(own, start=1)
        ]
        arrive(profile, rows)
        assert local.replica().standing.cursor == 3 and profile.read(mark) == (mark, [])  # nothing is read anew
        assert listed(made) == before
        local.commit(Changes(local.standing()))
        assert listed(made) == before
