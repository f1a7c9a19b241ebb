"""What the vectors ask: histories and calls, by the name of their case."""

from __future__ import annotations

from typing import Any

import numpy as np

SEED = 20260101
NOW_MS = 1_750_000_000_000
HOUR_MS = 3_600_000
TOLERANCE = 1e-4
"""How far a score may lie from the one that is written here; they are of the size of 1."""
PROBABILITY_TOLERANCE = 1e-5
TWINS = range(40, 44)
"""Rows of one vector and prior: their scores are equal, so that the lower row comes first."""

WITHDRAWN = (0, 9, 139)
"""Rows of withdrawn.xrec whose items are not offered; the last row of all among them."""


def item_ids(count: int) -> list[str]:
    names = [f"sku-{row}" for row in range(count)]
    names[5], names[6], names[7] = "artículo-5", "商品/6", "🛒 7"
    return names


def events(count: int, items: int, seed: int) -> list[dict[str, object]]:
    """Return the events of a user, oldest first, some of unknown items, types and devices, some at one time."""
    random = np.random.default_rng(SEED + seed)
    ids = item_ids(items)
    made: list[dict[str, object]] = []
    at_ms = NOW_MS - 90 * 24 * HOUR_MS
    for place in range(count):
        at_ms += int(random.choice([0, 30_000, 60_000, HOUR_MS, 26 * HOUR_MS, 40 * HOUR_MS]))
        event = str(random.choice(["view", "view", "cart", "purchase", "impression"]))
        device = str(random.choice(["phone", "pc", "mini_program", "fridge"]))
        item_id = f"gone-{place}" if random.random() < 0.1 else ids[int(random.integers(items))]
        made.append({"event": event, "item_id": item_id, "device": device, "at_ms": at_ms})
    return made


def searches() -> list[dict[str, object]]:
    """Return a history in which a search comes before what was searched for."""
    made: list[dict[str, object]] = []
    for place, query in enumerate(("green tea", "Straße ＣＡＦＥ́", "GREEN tea")):
        at_ms = NOW_MS - (3 - place) * 26 * HOUR_MS
        made.append({"event": "search", "query": query, "device": "phone", "at_ms": at_ms})
        made.append({"event": "view", "item_id": f"sku-{10 + place}", "device": "phone", "at_ms": at_ms + 60_000})
    return made


def case(name: str, bundle: str, calls: list[dict[str, Any]], history: list[dict[str, object]]) -> dict[str, Any]:
    return {
        "about": name,
        "bundle": bundle,
        "now_ms": NOW_MS,
        "tolerance": TOLERANCE,
        "events": history,
        "calls": calls,
    }


def probable(about: str, calls: list[dict[str, Any]], history: list[dict[str, object]]) -> dict[str, Any]:
    return {**case(about, "ranked.xrec", calls, history), "tolerance": PROBABILITY_TOLERANCE}


def call(method: str, **arguments: Any) -> dict[str, Any]:
    return {"call": method, "arguments": arguments}


def questions() -> dict[str, dict[str, Any]]:
    """Return every case by its file's name, without what must come out."""
    short, long, pool = events(5, 300, 1), events(40, 300, 2), events(15, 140, 3)
    recommend = "recommend"
    return {
        "01-encode-short": case("history to codes and user vector", "lowpass.xrec", [call("encode")], short),
        "02-encode-long": case("only the last max_history events count", "lowpass.xrec", [call("encode")], long),
        "03-encode-distinct": case("an item stands once, at its last event", "pool.xrec", [call("encode")], pool),
        "04-encode-empty": case(
            "no history is the zero vector; neither is one of unknown items",
            "lowpass.xrec",
            [call("encode"), call(recommend, k=5), call(recommend, k=5, explain=True), call("score", items=["sku-1"])],
            [{"event": "view", "item_id": "gone", "device": "pc", "at_ms": NOW_MS}],
        ),
        "05-encode-one": case("a single event", "lowpass.xrec", [call("encode"), call(recommend, k=5)], long[:1]),
        "06-clock-skew": case(
            "events are put in order of time; those in the future count as now",
            "lowpass.xrec",
            [call("encode"), call(recommend, k=10, filter_seen=False), call("export_my_data")],
            [
                {"event": "purchase", "item_id": "sku-9", "device": "pc", "at_ms": NOW_MS + HOUR_MS, "value": 3.5},
                {"event": "view", "item_id": "商品/6", "device": "phone", "at_ms": NOW_MS - HOUR_MS},
                {"event": "purchase", "item_id": "sku-9", "device": "phone", "at_ms": NOW_MS - 48 * HOUR_MS},
            ],
        ),
        "10-k": case(
            "k of 0, 1, N and more than N",
            "lowpass.xrec",
            [call(recommend, k=k) for k in (0, 1, 10, 299, 300, 1000)],
            short,
        ),
        "11-k-pool": case(
            "k of 1, N and more than N", "pool.xrec", [call(recommend, k=k) for k in (1, 140, 141)], pool
        ),
        "12-ties": case(
            "equal scores go to the lower row, also beyond a block's end and among zeros",
            "pool.xrec",
            [call(recommend, k=4, candidates=[f"sku-{row}" for row in reversed(TWINS)]), call(recommend, k=140)],
            [],
        ),
        "13-ties-with-taste": case(
            "twins of one vector and one prior",
            "lowpass.xrec",
            [call(recommend, k=4, candidates=[f"sku-{row}" for row in reversed(TWINS)])],
            long,
        ),
        "20-score": case(
            "scores of items, unknown ones left out",
            "lowpass.xrec",
            [call("score", items=["sku-1", "gone", "商品/6", "sku-1", "sku-299"]), call("score", items=[])],
            long,
        ),
        "21-similar": case(
            "the items like an item, itself left out, without the prior",
            "lowpass.xrec",
            [call("similar", item_id="sku-17", k=8), call("similar", item_id="🛒 7", k=0)],
            short,
        ),
        "22-unknown-item": case("an unknown item has none like it", "pool.xrec", [call("similar", item_id="gone")], []),
        "23-withdrawn": case(
            "an item that is not offered is known from histories, has items like it, and is in no list and not scored",
            "withdrawn.xrec",
            [
                call("encode"),
                call(recommend, k=140),
                call(recommend, k=3, candidates=["sku-9", "sku-139"]),
                call("score", items=["sku-9", "gone", "sku-8", "sku-0", "sku-139", "sku-138"]),
                call("similar", item_id="sku-9", k=4),
            ],
            [*pool, {"event": "view", "item_id": "sku-9", "device": "pc", "at_ms": NOW_MS}],
        ),
        "30-exclude": case(
            "excluded ids, unknown ones ignored",
            "lowpass.xrec",
            [call(recommend, k=6), call(recommend, k=6, exclude=["sku-1", "gone", *item_ids(300)[100:200]])],
            long,
        ),
        "31-candidates": case(
            "only these, unknown ones ignored",
            "lowpass.xrec",
            [
                call(recommend, k=6, candidates=["sku-250", "sku-3", "gone", "artículo-5", "sku-3"]),
                call(recommend, k=6, candidates=["gone"]),
                call(recommend, k=6, candidates=[]),
                call(recommend, k=3, candidates=["sku-1", "sku-2"], exclude=["sku-1"]),
            ],
            short,
        ),
        "32-where": case(
            "categories by name, and a function of the entry (here: price below)",
            "lowpass.xrec",
            [
                call(recommend, k=6, where={"category": "shelf 2"}),
                call(recommend, k=200, where={"category": ["shelf 2", "shelf 5", "none such"]}),
                call(recommend, k=6, where={"category": "none such"}),
                call(recommend, k=6, where_price_below=10),
                call(recommend, k=100, where_price_below=5),
            ],
            long,
        ),
        "33-cap": case(
            "a cap per category; items of none are free",
            "lowpass.xrec",
            [call(recommend, k=10, max_per_category=cap) for cap in (0, 1, 3)],
            long,
        ),
        "34-filter-seen": case(
            "what was bought is left out, or gains by the rule for buying again",
            "lowpass.xrec",
            [call(recommend, k=10, filter_seen=value) for value in (None, True, False)],
            long,
        ),
        "35-diversity": case(
            "maximal marginal relevance, with and without a cap",
            "lowpass.xrec",
            [
                call(recommend, k=8, diversity=0.3),
                call(recommend, k=8, diversity=0.7, max_per_category=2),
                call(recommend, k=8, diversity=0.2, where={"category": ["shelf 1", "shelf 3"]}),
            ],
            long,
        ),
        "36-diversity-empty": case(
            "with an empty history the order of popularity is the relevance",
            "pool.xrec",
            [call(recommend, k=6, diversity=0.5)],
            [],
        ),
        "37-not-personalised": case(
            "the profile is not read", "lowpass.xrec", [call(recommend, k=6, personalised=False)], long
        ),
        "40-explain": case(
            "the events whose absence would cost most", "lowpass.xrec", [call(recommend, k=4, explain=True)], long
        ),
        "41-explain-distinct": case("an item leaves whole", "pool.xrec", [call(recommend, k=4, explain=True)], pool),
        "50-usage": case(
            "arguments that can't be",
            "pool.xrec",
            [
                call(recommend, k=-1),
                call(recommend, k=1.5),
                call(recommend, k="ten"),
                call(recommend, max_per_category=-1),
                call(recommend, diversity=1.5),
                call(recommend, filter_seen="yes"),
                call(recommend, exclude="sku-1"),
                call(recommend, exclude=[1]),
                call(recommend, candidates="sku-1"),
                call(recommend, where={"price": "1"}),
                call(recommend, where={"category": 3}),
                call("score", items="sku-1"),
                call("similar", item_id="sku-1", k=-1),
                call("record", event="", item_id="a", device="pc"),
                call("record", event="view", item_id="a\0b", device="pc"),
                call("record", event="view", item_id="a", device="x" * 513),
                call("record", event="view", item_id="a", device="pc", at_ms=-1),
                call("record", event="view", item_id="a", device="pc", at_ms=1.5),
                call("feedback", recommendation_id="", item_id="a", event="view"),
            ],
            [],
        ),
        "60-forget": case(
            "after forgetting, the history is empty",
            "pool.xrec",
            [
                call("forget"),
                call("forget"),
                call("export_my_data"),
                call(recommend, k=3),
                call("record", event="view", item_id="sku-1", device="pc", at_ms=NOW_MS),
                call("encode"),
            ],
            pool,
        ),
        "61-consent": case(
            "withdrawn, the history is kept and read for nothing; a grant brings it back",
            "lowpass.xrec",
            [
                call("consent"),
                call("set_consent", purpose="personalise", granted=False, policy="2"),
                call("consent"),
                call("record", event="view", item_id="sku-1", device="pc", at_ms=NOW_MS),
                call("feedback", recommendation_id="list-1", item_id="sku-1", event="impression"),
                call("export_my_data"),
                call(recommend, k=3, explain=True),
                call(recommend, k=3, filter_seen=False),
                call("score", items=["sku-1", "sku-2"]),
                call("set_consent", purpose="sync", granted=True),
                call("record", event="view", item_id="sku-1", device="pc", at_ms=NOW_MS),
                call("set_consent", purpose="personalise", granted=True, policy="2"),
                call("record", event="view", item_id="sku-1", device="pc", at_ms=NOW_MS),
                call(recommend, k=3, explain=True),
                call("forget"),
                call("consent"),
            ],
            short,
        ),
        "62-consent-usage": case(
            "words that can't be",
            "pool.xrec",
            [
                call("set_consent", purpose="ads", granted=True),
                call("set_consent", purpose="sync", granted=1),
                call("set_consent", purpose="sync", granted=True, policy=7),
                call("set_consent", purpose="sync", granted=True, policy="x" * 513),
                call("consent"),
            ],
            [],
        ),
        **ranked_questions(),
    }


def ranked_questions() -> dict[str, dict[str, Any]]:
    """Return the cases of the bundle that says how probable an item is."""
    short, long, recommend = events(4, 60, 4), events(30, 60, 5), "recommend"
    return {
        "70-probability": probable(
            "each item's probability, in the order of the scores, under every rule",
            [
                call(recommend, k=6),
                call(recommend, k=60),
                call(recommend, k=6, filter_seen=False),
                call(recommend, k=6, exclude=["sku-1", "sku-2"], where={"category": ["shelf 1", "shelf 2"]}),
                call(recommend, k=6, where_price_below=5, max_per_category=2),
                call(recommend, k=4, diversity=0.5),
                call(recommend, k=3, explain=True),
            ],
            long,
        ),
        "71-context": probable(
            "the device in hand and the hour, where the app says them; an unknown device is none of them",
            [
                call(recommend, k=4, context=context)
                for context in (
                    {},
                    {"device": "phone"},
                    {"device": "pc"},
                    {"device": "fridge"},
                    {"hour": 0},
                    {"hour": 23.75},
                    {"device": "pc", "hour": 8.5},
                )
            ],
            short,
        ),
        "72-probability-none": probable(
            "no probability without a user: popular and similar items, and an empty history",
            [
                call(recommend, k=3, personalised=False),
                call("similar", item_id="sku-3", k=3),
                call("forget"),
                call(recommend, k=3),
                call(recommend, k=3, context={"device": "pc"}),
            ],
            short,
        ),
        "73-context-clock": probable(
            "an event of the future happened now; the encoded history alone counts",
            [call(recommend, k=4), call(recommend, k=4, filter_seen=False)],
            [*long, {"event": "view", "item_id": "sku-9", "device": "pc", "at_ms": NOW_MS + HOUR_MS}],
        ),
        "74-context-usage": probable(
            "contexts that can't be",
            [
                call(recommend, context=context)
                for context in (
                    "pc",
                    ["pc"],
                    {"device": 1},
                    {"hour": 24},
                    {"hour": -0.5},
                    {"hour": "8"},
                    {"hour": True},
                    {"minute": 5},
                )
            ],
            short,
        ),
        "76-fp32": {
            **probable(
                "items of float32: with probabilities and reasons, in ties, spread, like one, scored",
                [
                    call("encode"),
                    call(recommend, k=60),
                    call(recommend, k=5, explain=True),
                    call(recommend, k=4, candidates=[f"sku-{row}" for row in reversed(TWINS)]),
                    call(recommend, k=5, diversity=0.3),
                    call("similar", item_id="sku-3", k=5),
                    call("score", items=["sku-2"]),
                ],
                long,
            ),
            "bundle": "fp32.xrec",
        },
        "75-context-unused": case(
            "a bundle without a ranker checks the context and needs it not",
            "pool.xrec",
            [call(recommend, k=2, context={"device": "pc", "hour": 3}), call(recommend, k=2, context={"hour": 25})],
            [],
        ),
        "80-searches": case(
            "a search is an event of the history, a reason, and never recommended",
            "searches.xrec",
            [
                call("encode"),
                call(recommend, k=10),
                call(recommend, k=5, explain=True),
                call("record", event="search", query="手机壳 case", device="pc", at_ms=NOW_MS),
                call("encode"),
                call(recommend, k=5, explain=True),
                call("record", event="search", query="🍵", device="pc", at_ms=NOW_MS),
                call("record", event="search", item_id="query~AB!", device="pc", at_ms=NOW_MS),
                call("encode"),
                call("record", event="search", query="", device="pc"),
                call("record", event="search", query="t" * 513, device="pc"),
                call("record", event="search", query="a\0b", device="pc"),
                call("record", event="search", query="🍵" * 512, device="", at_ms=NOW_MS),
                call("export_my_data"),
            ],
            searches(),
        ),
        "81-searches-unread": case(
            "a bundle that reads no searches leaves them out",
            "ranked.xrec",
            [call("encode"), call("export_my_data")],
            searches(),
        ),
    }
