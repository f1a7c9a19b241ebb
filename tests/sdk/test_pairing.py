"""Pairing by six digits: what two devices agree on, and what whoever carries their letters can do about it."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from xrec_sdk.errors import UsageError
from xrec_sdk.keyring import new_vault
from xrec_sdk.pairing import Approver, Newcomer
from xrec_sdk.sync import LIMITS, SyncError
from xrec_sdk.sync_body import compact_json

SECRET = bytes(range(32))


def sides():
    newcomer = Newcomer(new_vault("PC").own, "d-new")
    return newcomer, Approver(newcomer.text, "d-old")


def test_both_show_the_same_digits_and_the_key_arrives():
    newcomer, approver = sides()
    reveal, shown = newcomer.reveal(approver.answer)
    assert approver.digits(reveal) == shown and len(shown) == 6 and shown.isdigit()
    assert (newcomer.answerer, approver.newcomer, approver.member.label) == ("d-old", "d-new", "PC")
    assert newcomer.secret(approver.key_letter(SECRET)) == SECRET
    letters = (approver.answer, reveal, approver.key_letter(SECRET))
    assert all(len(letter.encode()) <= LIMITS.letter_bytes for letter in letters)


def test_digits_differ_from_pairing_to_pairing():
    assert len({newcomer.reveal(approver.answer)[1] for newcomer, approver in (sides() for _ in range(20))}) > 15


def test_a_server_between_the_two_shows_other_digits_on_each():
    newcomer, approver = sides()
    own = new_vault("PC")
    false_newcomer = Newcomer(own.own, "d-new")
    false_approver = Approver(newcomer.text, "d-old")
    # The text was scanned, so the old device holds the server to it; where the text came through the server, it is not.
    misled = Approver(false_newcomer.text, "d-old")
    _, shown = newcomer.reveal(false_approver.answer)
    false_reveal, _ = false_newcomer.reveal(misled.answer)
    assert misled.digits(false_reveal) != shown
    with pytest.raises(SyncError) as refusal:
        approver.digits(false_reveal)
    assert refusal.value.code == "e2e.pairing"


def test_who_stands_between_can_not_try_digits_out_on_the_new_device():
    newcomer, approver = sides()
    newcomer.reveal(approver.answer)
    with pytest.raises(SyncError) as refusal:
        newcomer.reveal(Approver(newcomer.text, "d-old").answer)
    assert refusal.value.code == "e2e.pairing"


def test_a_key_that_another_sends_is_not_taken_though_it_is_sealed_to_the_new_device():
    newcomer, approver = sides()
    other = Approver(newcomer.text, "d-old")
    reveal, _ = newcomer.reveal(approver.answer)
    approver.digits(reveal)
    other.digits(reveal)
    with pytest.raises(SyncError) as refusal:
        newcomer.secret(other.key_letter(bytes(32)))
    assert refusal.value.code == "e2e.pairing"


@pytest.mark.parametrize(
    "change",
    [
        lambda given: {**given, "nonce": "other"},
        lambda given: {**given, "member": {**given["member"], "label": "TV"}},
        lambda given: {**given, "member": asdict(new_vault("PC").own.member())},
        lambda given: {**given, "member": {**given["member"], "public": "A" * 43}},
        lambda given: {**given, "member": {**given["member"], "more": 1}},
        lambda given: {**given, "member": None},
        lambda given: {**given, "step": "key"},
        lambda given: {},
        lambda given: [],
        lambda given: {**given, "nonce": 7},
    ],
)
def test_a_reveal_that_was_changed_ends_the_pairing(change):
    newcomer, approver = sides()
    reveal, _ = newcomer.reveal(approver.answer)
    with pytest.raises(SyncError) as refusal:
        approver.digits(compact_json(change(json.loads(reveal))))
    assert refusal.value.code == "e2e.pairing"
    with pytest.raises(SyncError):
        approver.key_letter(SECRET)


@pytest.mark.parametrize("public", ["", "A" * 43, "é" * 43, 7, None])
def test_an_answer_without_a_key_ends_the_pairing(public):
    newcomer, approver = sides()
    with pytest.raises(SyncError) as refusal:
        newcomer.reveal(compact_json({**json.loads(approver.answer), "public": public}))
    assert refusal.value.code == "e2e.pairing"


@pytest.mark.parametrize(
    "letter", ["", "{", "null", "[" * 100_000, '{"step":"key"}', '{"step":"key","sealed":"","mac":""}']
)
def test_a_letter_that_is_none_ends_the_pairing(letter):
    newcomer, approver = sides()
    for read in (newcomer.reveal, approver.digits, newcomer.secret):
        with pytest.raises(SyncError) as refusal:
            read(letter)
        assert refusal.value.code == "e2e.pairing"


@pytest.mark.parametrize(
    "text", ["", "xrec-pair:1:", "xrec-pair:2:" + "A" * 43 + ":d", "xrec-pair:1:" + "A" * 43, None, 7]
)
def test_a_text_that_no_device_shows_is_refused(text):
    with pytest.raises(UsageError) as refusal:
        Approver(text, "d-old")
    assert refusal.value.code == "usage.pairing_text"
