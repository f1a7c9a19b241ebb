from __future__ import annotations

import asyncio
import inspect
import threading

import pytest
from xrec_sdk import ProfileError, Recommender, UsageError
from xrec_sdk.aio import AsyncRecommender

NAMES = [name for name, value in vars(Recommender).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_each_method_has_a_twin_with_the_same_words(name):
    twin, method = getattr(AsyncRecommender, name), getattr(Recommender, name)
    assert inspect.iscoroutinefunction(twin)
    assert inspect.signature(twin) == inspect.signature(method) and twin.__doc__ == method.__doc__


def test_a_twin_answers_as_the_recommender_does(recommender):
    async def ask():
        twin = AsyncRecommender(recommender)
        await twin.record("view", "sku-5", device="phone")
        return await twin.recommend(5, filter_seen=False), await twin.similar("sku-5", 3), await twin.score(["sku-9"])

    listed, alike, scores = asyncio.run(ask())
    assert [item.item_id for item in listed] == [item.item_id for item in recommender.recommend(5, filter_seen=False)]
    assert [item.item_id for item in alike] == [item.item_id for item in recommender.similar("sku-5", 3)]
    assert scores == recommender.score(["sku-9"])


def test_opened_with_a_file_it_serves_many_at_once_and_closes(shared_bundle, tmp_path):
    async def ask():
        path = tmp_path / "profile.db"
        async with await AsyncRecommender.open(
            shared_bundle.folder, path, trusted_keys=[shared_bundle.key]
        ) as recommender:
            await recommender.set_consent("personalise", True)
            await asyncio.gather(*(recommender.record("view", f"sku-{n}", device="pc") for n in range(20)))
            lists = await asyncio.gather(*(recommender.recommend(3) for _ in range(20)))
            assert len({tuple(item.item_id for item in listed) for listed in lists}) == 1
            assert await recommender.forget() == 20
        with pytest.raises(ProfileError) as caught:
            await recommender.recommend()
        return caught.value.code

    assert asyncio.run(ask()) == "profile.closed"


def test_errors_are_those_of_the_recommender(recommender):
    with pytest.raises(UsageError) as caught:
        asyncio.run(AsyncRecommender(recommender).recommend(-1))
    assert caught.value.code == "usage.k"


def test_the_loop_goes_on_while_a_call_works(recommender):
    loop_ran = threading.Event()

    async def ask():
        def waits_for_the_loop(entry):
            return loop_ran.wait(10)

        answer = asyncio.ensure_future(AsyncRecommender(recommender).recommend(1, where=waits_for_the_loop))
        await asyncio.sleep(0)
        loop_ran.set()
        return await answer

    assert len(asyncio.run(ask())) == 1
