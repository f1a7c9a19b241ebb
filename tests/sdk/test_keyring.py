"""Which devices share a profile's keys: what honest devices agree on, and what nobody else can make them take."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from xrec_sdk.errors import UsageError
from xrec_sdk.keyring import MAX_MEMBERS, _signed, adopt, new_vault, read_vault, renew, take, take_all, write_vault
from xrec_sdk.member import Identity
from xrec_sdk.seal import lock, spell
from xrec_sdk.sync import ZERO, Row, SyncError
from xrec_sdk.sync_body import compact_json
from xrec_sdk.sync_merge import netstrings

SEQS = itertools.count(1)


def row(made, seq=None):
    """Return the row that the server makes of what ``renew`` has made."""
    _, id, body = made
    return Row(seq or next(SEQS), "key", id, 1, ZERO, "d", 1, 0, 0, body)


def family(*labels):
    """Return vaults of devices that share a profile, the first having made it, and the rows of its keys."""
    first = new_vault(labels[0])
    made = renew(first, add=[first.own.member()])
    rows, vaults = [row(made)], [made[0]]
    for label in labels[1:]:
        made = approved(vaults[0], fresh := new_vault(label))
        rows.append(row(made))
        vaults = [made[0], *vaults[1:], adopt(fresh, made[0].ring[made[1]])]
        vaults = [take_all(vault, rows)[0] for vault in vaults]
    return [take_all(vault, rows)[0] for vault in vaults], rows


def approved(vault, newcomer):
    return renew(vault, add=[newcomer.own.member()])


def test_rfc_9180_vector_a_2_opens_with_the_library():
    # RFC 9180, A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode. The library's one-shot call
    # binds no associated data, so the message is made of the vector's key and base nonce, and opened with its skRm.
    enc = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
    private = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
    info = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
    key = bytes.fromhex("ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91")
    base_nonce = bytes.fromhex("5c4d98150661b848853b547f")
    plain = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
    sealed = ChaCha20Poly1305(key).encrypt(base_nonce, plain, None)
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    assert suite.decrypt(enc + sealed, X25519PrivateKey.from_private_bytes(private), info=info) == plain


def test_devices_that_were_approved_share_every_key_and_seal_with_the_last():
    vaults, rows = family("phone", "pc", "tablet")
    assert len(rows) == 3 and {vault.current.id for vault in vaults} == {rows[-1].id}
    assert all(vault.ring.keys() == {one.id for one in rows} for vault in vaults)
    assert all(sorted(one.label for one in vault.members) == ["pc", "phone", "tablet"] for vault in vaults)
    assert read_vault(write_vault(vaults[2])) == vaults[2]


def test_a_key_row_shows_no_key_and_no_label():
    vaults, rows = family("Anna's phone", "pc")
    for one in rows:
        assert "Anna" not in one.body and not any(secret.secret in one.body for secret in vaults[0].secrets)


def test_rows_may_come_in_any_order_and_twice():
    vaults, rows = family("phone", "pc", "tablet")
    last = adopt(new_vault("other"), vaults[0].current.raw)
    for order in itertools.permutations(rows):
        vault, wrong = take_all(last, [*order, *order])
        assert not wrong and vault.ring == vaults[0].ring


def test_a_removed_device_gets_no_later_key_and_knows_that_it_may_make_none():
    (phone, pc, tablet), rows = family("phone", "pc", "tablet")
    made = renew(phone, remove=[tablet.own.member().id])
    rows.append(row(made))
    phone, pc, tablet = (take_all(vault, rows)[0] for vault in (made[0], pc, tablet))
    assert phone.current.id == pc.current.id == rows[-1].id
    assert rows[-1].id not in tablet.ring and tablet.current is None and not tablet.is_member
    assert len(pc.ring) == 4  # what was written before stays readable
    forged = row(renew(replace(tablet, missed=0)))
    with pytest.raises(SyncError) as refusal:
        take(pc, forged)
    assert refusal.value.code == "e2e.bad_key"


def test_of_a_removal_and_a_key_made_at_once_the_join_holds_and_a_third_key_is_made():
    (phone, pc, tablet), rows = family("phone", "pc", "tablet")
    removal, other = renew(phone, remove=[tablet.own.member().id]), renew(pc)
    for first, second in ((removal, other), (other, removal)):
        both = [*rows, row(first), row(second)]
        seen = [take_all(vault, both)[0] for vault in (removal[0], other[0])]
        assert all(tablet.own.member().id in vault.removed for vault in seen)
        is_last = second is removal
        assert all((vault.current is not None) == is_last for vault in seen)
        if not is_last:
            again = renew(seen[1])
            seen = [take_all(vault, [*both, row(again)])[0] for vault in (seen[0], again[0])]
            assert seen[0].current.id == seen[1].current.id == again[1]
        assert tablet.own.member().id not in seen[0].current.to


def test_of_two_devices_approved_at_once_neither_is_lost():
    (phone, pc), rows = family("phone", "pc")
    watch, car = new_vault("watch"), new_vault("car")
    one, two = approved(phone, watch), approved(pc, car)
    rows += [row(one), row(two)]
    watch, car = adopt(watch, one[0].ring[one[1]]), adopt(car, two[0].ring[two[1]])
    vaults = [take_all(vault, rows)[0] for vault in (one[0], two[0], watch, car)]
    assert vaults[0].current is None
    made = renew(vaults[0])
    rows.append(row(made))
    vaults = [take_all(vault, rows)[0] for vault in (made[0], *vaults[1:])]
    assert {vault.current.id for vault in vaults} == {made[1]}
    assert len({tuple(sorted(vault.ring)) for vault in vaults}) == 1


def test_after_everything_was_erased_the_new_key_tells_of_no_older_one():
    (phone, pc), rows = family("phone", "pc")
    made = renew(phone, is_fresh=True)
    assert list(made[0].ring) == [made[1]]
    for old in rows:  # the server says them again
        with pytest.raises(SyncError) as refusal:
            take(made[0], old)
        assert refusal.value.code == "e2e.bad_key"
    newcomer = take_all(adopt(new_vault("new"), made[0].current.raw), [*rows, row(made)])[0]
    assert list(newcomer.ring) == [made[1]]
    assert take_all(pc, [row(made)])[0].current.id == made[1]


def test_who_was_removed_can_not_make_an_old_key_the_current_one_for_a_newcomer():
    (phone, _, tablet), rows = family("phone", "pc", "tablet")
    gone = tablet.own.member().id
    made = renew(phone, remove=[gone])
    newcomer = new_vault("new")
    joined = approved(made[0], newcomer)
    wanted = joined[0].wanted
    old = next(one for one in tablet.secrets if one.id == rows[-1].id)
    # It writes the row of a key that it knows anew, as given to all who are members now, and the server puts it last.
    forged = json.loads(rows[-1].body)
    forged["to"] = {one: forged["to"].get(one, "A" * 107) for one in wanted}
    late = Row(1 << 40, "key", old.id, 1, ZERO, "d", 1, 0, 0, compact_json(forged))
    vault = adopt(newcomer, joined[0].current.raw)
    vault = take_all(vault, [rows[0], rows[1], row(made), row(joined), late])[0]
    assert vault.current.id == joined[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body | {"by": "A" * 22},
        lambda body: body | {"inside": body["inside"][:-1] + "A"},
        lambda body: body | {"signature": "A" * 86},
        lambda body: body | {"signature": ""},
        lambda body: body | {"to": {**body["to"], "B" * 22: "A"}},
        lambda body: body | {"to": {name: "A" * 107 for name in body["to"]}},
        lambda body: body | {"salt": "x"},
        lambda body: body | {"key": "A" * 22},
        lambda body: body | {"to": []},
        lambda body: body | {"to": {"a": 7}},
        lambda body: {},
        lambda body: [],
        lambda body: body | {"inside": None},
    ],
)
def test_a_key_row_that_a_server_has_changed_is_not_taken(change):
    (phone, pc), _ = family("phone", "pc")
    good = row(renew(phone))
    with pytest.raises(SyncError) as refusal:
        take(pc, replace(good, body=compact_json(change(json.loads(good.body)))))
    assert refusal.value.code == "e2e.bad_key"
    assert take(pc, good).current.id == good.id


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", '{"to":{}}'])
def test_a_key_row_that_is_no_json_of_its_kind_is_not_taken(text):
    (phone, _), _ = family("phone", "pc")
    with pytest.raises(SyncError) as refusal:
        take(phone, Row(9, "key", "k", 1, ZERO, "d", 1, 0, 0, text))
    assert refusal.value.code == "e2e.bad_key"


def test_a_key_of_the_servers_own_is_not_taken_though_it_is_sealed_to_the_device():
    (phone, _), _ = family("phone", "pc")
    evil = new_vault("evil")
    made = renew(replace(evil, members=phone.members), add=[evil.own.member()])
    with pytest.raises(SyncError) as refusal:
        take(phone, row(made))
    assert refusal.value.code == "e2e.bad_key"


@pytest.mark.parametrize("inside", [{}, {"members": 7}, {"members": [{"id": "x"}]}, {"members": [], "removed": None}])
def test_a_device_that_says_nonsense_of_the_others_is_not_followed(inside):
    (phone, pc), _ = family("phone", "pc")
    made, id, text = renew(phone)
    said, secret = json.loads(text), made.ring[id]
    bound = netstrings(("xrec-inside", id, said["by"]))
    said["inside"] = spell(
        lock(secret, "inside", bound, compact_json({"past": [], "recovery": None, **inside}).encode())
    )
    said["signature"] = phone.own.sign(_signed(said))
    with pytest.raises(SyncError) as refusal:
        take(pc, Row(next(SEQS), "key", id, 1, ZERO, "d", 1, 0, 0, compact_json(said)))
    assert refusal.value.code == "e2e.bad_key"


def test_a_device_that_nobody_approved_takes_no_row():
    _, rows = family("phone", "pc")
    vault, wrong = take_all(new_vault("new"), rows)
    assert vault.secrets == () and wrong == []


def test_a_key_for_too_many_devices_is_not_made():
    first = new_vault("first")
    others = [Identity.of(bytes([n]) * 32, bytes([n]) * 32, "x" * 64).member() for n in range(1, MAX_MEMBERS + 1)]
    renew(first, add=[first.own.member(), *others[: MAX_MEMBERS - 1]])
    with pytest.raises(UsageError) as refusal:
        renew(first, add=[first.own.member(), *others])
    assert refusal.value.code == "e2e.too_many_devices"


@pytest.mark.parametrize("label", ["", "x" * 65, 7, "a\0b"])
def test_a_label_is_a_short_text(label):
    with pytest.raises(UsageError) as refusal:
        new_vault(label)
    assert refusal.value.code == "usage.label"
