"""Planted faults: each a small variant of one rule, which the simulator must catch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from simulator import World
from xrec_sdk import sync_device, sync_draft, sync_heed, sync_merge, sync_rename, sync_server, sync_upkeep, sync_work
from xrec_sdk.sync import Page
from xrec_sdk.sync_merge import Consent

Plant = Callable[[pytest.MonkeyPatch], None]


def cursor_ahead(patch: pytest.MonkeyPatch) -> None:
    """The cursor is taken from the profile's seq, not from the last row of the page."""
    right = sync_server.page

    def wrong(*given: Any) -> tuple[Page, Any]:
        page, writes = right(*given)
        return (page if page.code else replace(page, next=page.head.seq, more=False)), writes

    patch.setattr(sync_server, "page", wrong)


def no_floor(patch: pytest.MonkeyPatch) -> None:
    """A device keeps events below the floor and takes no notice that digests differ."""
    patch.setattr(sync_heed, "is_retired", lambda *given: False)


def by_event_id_only(patch: pytest.MonkeyPatch) -> None:
    """The server knows a repeated operation by its event's id, and not by its device's number."""
    right = sync_server.accept

    def wrong(profile: Any, device: Any, push: Any, *given: Any) -> Any:
        forgetful = replace(device, high_water=min(device.high_water, push.first - 1), recent=(), first=1)
        return right(profile, forgetful, push, *given)

    patch.setattr(sync_server, "accept", wrong)


def no_epoch_check(patch: pytest.MonkeyPatch) -> None:
    """The server takes operations of older epochs."""
    right = sync_work.Work._unwelcome
    patch.setattr(sync_work.Work, "_unwelcome", lambda work, op: right(work, replace(op, epoch=work.head.epoch)))


def acknowledged_before_persisted(patch: pytest.MonkeyPatch) -> None:
    """The server answers, and dies before it commits: one write in ten."""

    def wrong(world: World, writes: Any) -> None:
        if world.random.random() > 0.1:
            world.server.commit(writes)

    patch.setattr(World, "persist", wrong)


def no_clamp(patch: pytest.MonkeyPatch) -> None:
    """The server believes every clock."""
    patch.setattr(sync_work, "clamp", lambda hlc, now_ms, ahead_ms: hlc)


def grant_wins(patch: pytest.MonkeyPatch) -> None:
    """Of a grant and a refusal the later clock wins, the grant on a tie."""

    def wrong(one: Consent, other: Consent) -> Consent:
        joined = sync_merge.join_consent(one, other)
        return replace(joined, over=joined.refused) if one.is_granted or other.is_granted else joined

    patch.setattr(sync_work, "join_consent", wrong)


def erasure_forgotten_early(patch: pytest.MonkeyPatch) -> None:
    """Compaction drops erasures that not every device has passed, and says nothing of it."""
    right = sync_server.compact

    def wrong(profile: Any, *given: Any) -> Any:
        events, erasures, devices, *rest = given
        eager = [replace(device, passed=profile.head.seq) for device in devices]
        writes = right(profile, events, erasures, eager, *rest)
        head = replace(writes.profile.head, forgotten=profile.head.forgotten)
        return replace(writes, profile=replace(writes.profile, head=head))

    patch.setattr(sync_server, "compact", wrong)


def nop_forgotten(patch: pytest.MonkeyPatch) -> None:
    """An operation that was erased before it was sent is taken out of the queue, and its number is missing."""

    def wrong(draft: Any, one: Any, code: str | None = None) -> None:
        draft.queue[one.op.dseq] = None

    patch.setattr(sync_draft.Draft, "void", wrong)


def copies_unseen(patch: pytest.MonkeyPatch) -> None:
    """The server does not compare what it has with what is sent again."""
    patch.setattr(sync_server, "_is_copied", lambda device, push, known: False)


def queue_not_erased(patch: pytest.MonkeyPatch) -> None:
    """An erasure reaches the rows of a device, but not what it has yet to send."""
    patch.setattr(sync_heed, "own_erase", lambda draft, id: 0)


def no_generation(patch: pytest.MonkeyPatch) -> None:
    """A restored server says nothing of it: the ledger is not applied and the generation stays."""

    def wrong(profile: Any, rows: Any, ledger: Any, now_ms: int) -> Any:
        return ledger, sync_server.Writes(profile)

    patch.setattr(sync_server, "restored", wrong)


def erased_in_rows_only(patch: pytest.MonkeyPatch) -> None:
    """The account's erasure empties the profile, but begins no epoch."""
    right = sync_server.erased

    def wrong(profile: Any, *given: Any) -> Any:
        receipt, writes = right(profile, *given)
        if writes:
            head = replace(writes.profile.head, epoch=profile.head.epoch, erased_by=profile.head.erased_by)
            writes = replace(writes, profile=replace(writes.profile, head=head))
        return receipt, writes

    patch.setattr(sync_server, "erased", wrong)


def seqs_given_twice(patch: pytest.MonkeyPatch) -> None:
    """A restored server goes on counting from its backup."""
    patch.setattr(sync_upkeep, "SEQ_JUMP", 0)


def lost_devices_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Nobody stands for the devices that a backup does not know."""
    right = sync_server.restored

    def wrong(*given: Any) -> Any:
        ledger, writes = right(*given)
        return ledger, replace(writes, device=None)

    patch.setattr(sync_server, "restored", wrong)


def nops_over_copies(patch: pytest.MonkeyPatch) -> None:
    """A nop is let stand over the erasure that a copy said under its number."""
    right = sync_server._is_copied
    patch.setattr(sync_server, "_is_copied", lambda device, push, known: right(device, push, {}))


def removed_in_vain(patch: pytest.MonkeyPatch) -> None:
    """A removed device keeps what it has."""
    patch.setattr(sync_device, "give_up", lambda draft: None)


def lost_taken_for_retired(patch: pytest.MonkeyPatch) -> None:
    """A device believes acknowledgements of a server that has been restored since."""
    patch.setattr(sync_heed, "_doubt", lambda draft, base: None)


def forgotten_unseen(patch: pytest.MonkeyPatch) -> None:
    """A device that has missed erasures that are forgotten takes a page as if nothing were amiss."""
    patch.setattr(sync_heed, "_fall_behind", lambda draft, head: None)


def consents_said_again(patch: pytest.MonkeyPatch) -> None:
    """A device drops a refusal that a copy has delivered, before a page has brought it."""
    patch.setattr(sync_rename, "_hold", lambda draft, op, device: None)


def forgotten_for_good(patch: pytest.MonkeyPatch) -> None:
    """The server does not know again an erasure that all have forgotten."""
    right = sync_server.accept
    patch.setattr(sync_server, "accept", lambda *given: right(*given[:6]))


FAULTS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        cursor_ahead,
        no_floor,
        by_event_id_only,
        no_epoch_check,
        acknowledged_before_persisted,
        no_clamp,
        grant_wins,
        erasure_forgotten_early,
        nop_forgotten,
        queue_not_erased,
        no_generation,
        erased_in_rows_only,
        seqs_given_twice,
    )
}
# Faults that need more luck than 40 histories have; each is caught by the least history of its kind.
RARE: dict[str, Plant] = {
    "an_erasure_is_not_forgotten_while_a_device_that_the_backup_does_not_know_may_come": lost_devices_forgotten,
    "a_nop_does_not_hide_the_erasure_of_a_copy_under_the_same_number": nops_over_copies,
    "two_events_under_one_number_are_not_taken_for_one": copies_unseen,
    "a_removed_device_gives_up_the_profile_and_its_unsent_events_but_not_its_erasures": removed_in_vain,
    "what_the_server_lost_is_not_taken_for_retired": lost_taken_for_retired,
    "a_device_that_was_set_back_is_not_taken_to_have_checked_what_is_forgotten": forgotten_unseen,
    "a_device_that_was_set_back_does_not_take_again_what_was_said_since_an_erasure_that_is_forgotten": (
        forgotten_for_good
    ),
    "a_refusal_that_a_copy_has_delivered_holds_until_a_page_brings_it": consents_said_again,
}


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Run with one fault."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        yield
