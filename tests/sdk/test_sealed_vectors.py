"""What another client must compute alike: tests/vectors/sealed.json; docs/sync-protocol.md says how ("End to end")."""

from __future__ import annotations

import json
from pathlib import Path

from xrec_sdk.keyring import Recovery, Vault, adopt, given_to, proves, renew, take
from xrec_sdk.member import Identity
from xrec_sdk.pairing import _Agreed, _commitment, _transcript
from xrec_sdk.recovery import open_recovery
from xrec_sdk.seal import key_id, seal, seal_criteria, trapdoor, unseal, unspell
from xrec_sdk.sync import ZERO, Row
from xrec_sdk.sync_body import compact_json, criteria, takes

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sealed.json").read_text(encoding="utf-8"))


def key_row() -> Row:
    given = VECTORS["key_row"]
    return Row(1, "key", given["id"], 1, ZERO, "d", 1, 0, 0, given["body"])


def identity(name: str) -> Identity:
    given = VECTORS["key_row"]
    return Identity(given["private"][name], given["signing"][name], name)


def test_an_event_is_sealed_and_erased_as_the_vectors_say():
    given = VECTORS["event"]
    key = unspell(given["key"], 32)
    assert key_id(key) == given["key_id"] and seal(key, given["body"]) == given["sealed"]
    assert json.loads(unseal({given["key_id"]: key}, given["sealed"])) == json.loads(given["body"])
    said = json.loads(given["body"])
    assert {name: trapdoor(key, name, said[name]) for name in given["trapdoor"]} == given["trapdoor"]
    erasure = given["erasure"]
    assert compact_json(seal_criteria({given["key_id"]: key}, erasure["asked"])) == erasure["body"]
    assert takes(criteria(erasure["body"]), given["sealed"])


def test_a_key_row_opens_to_its_members_as_the_vectors_say():
    given = VECTORS["key_row"]
    for name, id in given["members"].items():
        own = identity(name)
        assert own.member().id == id and given_to(own, key_row()) == unspell(given["key"], 32)
    members = renew(Vault(identity("phone")), add=[identity("phone").member()])[0].members
    taken = take(Vault(identity("pc"), members), key_row())
    assert taken.current and taken.current.secret == given["key"]
    assert sorted(one.label for one in taken.members) == ["pc", "phone", "recovery code"]
    assert take(adopt(Vault(identity("pc")), unspell(given["key"])), key_row()).current == taken.current


def test_the_recovery_code_gives_the_keys_that_the_vectors_say():
    given = VECTORS["recovery"]
    own, key = open_recovery(given["code"], [key_row()])
    assert (own.private, own.signing, own.member().id) == (given["private"], given["signing"], given["member"])
    assert key == unspell(VECTORS["key_row"]["key"])
    assert proves(Recovery(given["member"], given["salt"], given["proof_key"]), key_row())


def test_a_pairing_gives_the_digits_that_the_vectors_say():
    given = VECTORS["pairing"]
    new, old = given["new"], given["old"]
    own = Identity(new["private"], new["signing"], new["label"])
    commitment = _commitment(given["device"], own.member(), new["nonce"])
    assert given["text"] == f"xrec-pair:1:{commitment}:{given['device']}"
    transcript = _transcript(commitment, old["public"], old["nonce"], own.member(), new["nonce"])
    agreed = _Agreed(own, old["public"], transcript)
    assert (agreed.digits, agreed.info.decode(), agreed.mac("x")) == (given["digits"], given["info"], given["mac_of_x"])
