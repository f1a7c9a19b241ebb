"""What a device and its user ask over HTTP is answered as docs/sync-protocol.md says."""

from __future__ import annotations

import gzip
import http.client
import json
import sys
import threading
import time
from pathlib import Path

import pytest
from xrec_sdk import sync_json
from xrec_sdk.sync_merge import digest_of, digest_text

sys.path.insert(0, str(Path(__file__).parent))
from served import PUSH, Client, event, granted, op, served, settings, token


def test_a_push_is_acknowledged_and_comes_back_as_rows(client: Client) -> None:
    device = client.register()
    viewed = event()
    answer = client.push(device, 1, [*granted(), viewed])
    assert answer.json["acks"] == [[1, 1], [2, 2], [3, 3]] and answer.json["code"] is None
    page = sync_json.read_page(client.changes(device).body)
    assert [row.kind for row in page.rows] == ["consent", "consent", "event"]
    assert page.rows[2].body == viewed["body"] and page.digest == digest_text(digest_of(page.rows))


def test_the_sdk_reads_every_answer(client: Client) -> None:
    asked = sync_json.RegisterRequest(1, "", 0, 1, 0)
    registered = sync_json.read_registered(client.ask("POST", "/v1/profile/register", sync_json.write(asked)).body)
    answer = sync_json.read_push_answer(client.push(registered.device, 1, granted()).body)
    assert answer.high_water == 2
    receipt = client.ask("POST", "/v1/profile/erase", sync_json.write(sync_json.EraseRequest(1, "r-1")))
    assert sync_json.read_receipt(receipt.body).epoch == 2


def test_the_same_push_twice_counts_once(client: Client) -> None:
    device = client.register()
    ops = [*granted(), event()]
    first, again = client.push(device, 1, ops), client.push(device, 1, ops)
    assert again.json["acks"] and again.json["high_water"] == first.json["high_water"] == 3
    assert len(client.changes(device).json["rows"]) == 3


def test_a_long_poll_is_answered_when_another_device_pushes(client: Client) -> None:
    phone, tablet = client.register(), client.register()
    client.push(phone, 1, granted())
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(client.changes(tablet, after=2, wait=30)))
    began = time.monotonic()
    waiting.start()
    while b"xrec_long_polls 1" not in client.ask("GET", "/metrics").body:
        assert time.monotonic() - began < 20
    client.push(phone, 3, [event()])
    waiting.join(20)
    assert len(answers[0].json["rows"]) == 1 and time.monotonic() - began < 25


def test_a_long_poll_without_news_ends_with_no_rows(client: Client) -> None:
    device = client.register()
    began = time.monotonic()
    page = client.changes(device, wait=1).json
    assert page["rows"] == [] and page["code"] is None and time.monotonic() - began >= 1


def test_a_refusal_of_the_rules_is_an_answer_with_its_code(client: Client) -> None:
    device = client.register()
    assert client.push(device, 5, [event()]).json["code"] == "sync.gap"
    assert client.push(device, 1, [event()], generation=7).json["code"] == "sync.generation"
    assert client.push("d-nobody", 1, [event()]).json["code"] == "sync.unknown_device"
    assert client.changes("d-nobody").json["code"] == "sync.unknown_device"


def test_what_one_operation_lacks_does_not_stop_the_others(client: Client) -> None:
    device = client.register()
    answer = client.push(device, 1, [event(), *granted(), {**event(), "body": "[" * 16_000}, event()])
    assert answer.json["rejected"] == [[1, "sync.no_consent"], [4, "sync.bad_body"]]
    assert [dseq for dseq, _ in answer.json["acks"]] == [2, 3, 5]


def test_an_erasure_of_the_account_gives_a_receipt_that_names_who_has_not_heard(client: Client) -> None:
    phone, tablet = client.register(), client.register()
    client.push(phone, 1, [*granted(), event("old")])
    receipt = client.ask("POST", "/v1/profile/erase", {"v": 1, "id": "receipt-1"}).json
    assert receipt["epoch"] == 2 and receipt["pending"] == sorted([phone, tablet])
    page = client.changes(phone).json
    assert {row["kind"] for row in page["rows"]} == {"consent", "erase"} and page["head"]["epoch"] == 2
    client.changes(phone, after=page["next"])
    again = client.ask("POST", "/v1/profile/erase", {"v": 1, "id": "receipt-1"}).json
    assert again == {**receipt, "pending": [tablet]}
    late = client.push(tablet, 1, [event("said before")])
    assert late.json["rejected"] == [[1, "sync.old_epoch"]]


def test_an_export_has_rows_devices_and_every_word_about_consent(client: Client) -> None:
    device = client.register()
    refusal = op("consent", "personalise", json.dumps({"granted": False, "policy": "1"}))
    client.push(device, 1, [*granted(), event(), refusal])
    export = client.ask("GET", "/v1/profile/export").json
    assert export["schema"] == "xrec-export/1"
    assert sorted(row["kind"] for row in export["rows"]) == ["consent", "consent", "event"]
    assert [json.loads(line["body"])["granted"] for line in export["consent_history"]] == [True, True, False]
    assert [one["id"] for one in export["devices"]] == [device]


def test_a_removed_device_is_unknown_and_the_others_stay(client: Client) -> None:
    phone, tablet = client.register(), client.register()
    assert {one["id"] for one in client.ask("GET", "/v1/devices").json["devices"]} == {phone, tablet}
    assert client.ask("DELETE", f"/v1/devices/{tablet}").status == 204
    assert client.ask("DELETE", f"/v1/devices/{tablet}").status == 204
    assert client.changes(tablet).json["code"] == "sync.unknown_device"
    assert client.changes(phone).json["code"] is None


def test_a_gzip_push_is_read_and_a_long_answer_is_compressed_where_that_is_taken(client: Client) -> None:
    device = client.register()
    ops = [{**one, "dseq": place} for place, one in enumerate([*granted(), *(event() for _ in range(20))], 1)]
    push = {"v": 1, "device": device, "generation": 1, "checked": 0, "first": 1, "ops": ops}
    body = gzip.compress(json.dumps(push).encode(), 1)
    assert client.ask("POST", PUSH, body, Content_Encoding="gzip").json["high_water"] == 22
    path = f"/v1/profile/changes?device={device}&generation=1&after=0"
    packed = client.ask("GET", path, Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body))["rows"] == client.ask("GET", path).json["rows"]


def test_a_bundle_is_served_in_parts_and_nothing_beside_the_folder(client: Client) -> None:
    assert client.ask("GET", "/v1/bundles/shop.xrec").body == b"bundle"
    assert client.ask("GET", "/v1/bundles/shop.xrec", Range="bytes=1-2").body == b"un"
    for path in ("/v1/bundles/../secret.txt", "/v1/bundles/%2e%2e/secret.txt", "/v1/bundles/..%2fsecret.txt"):
        assert client.ask("GET", path).status == 404


def test_a_browser_of_an_allowed_origin_may_ask_and_another_may_not(client: Client) -> None:
    wanted = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    allowed = client.ask("OPTIONS", PUSH, Origin="https://shop.example", **wanted)
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    other = client.ask("OPTIONS", PUSH, Origin="https://evil.example", **wanted)
    assert "access-control-allow-origin" not in other.headers


def test_health_metrics_and_the_openapi_document_are_open_and_name_no_profile(client: Client) -> None:
    device = client.register()
    client.push(device, 1, granted())
    open_client = Client(client.port, None)
    assert open_client.ask("GET", "/healthz").json == {"status": "ok"}
    text = open_client.ask("GET", "/metrics").body.decode()
    assert 'xrec_requests_total{route="/v1/profile/push",method="POST",status="200"}' in text
    assert device not in text
    assert "/v1/profile/push" in open_client.ask("GET", "/openapi.json").json["paths"]


def test_too_many_events_a_minute_are_told_when_to_come_again(tmp_path: Path) -> None:
    with served(settings(tmp_path, events_per_minute=40)) as port:
        client = Client(port, token(tmp_path))
        device = client.register()
        assert client.push(device, 1, [*granted(), *(event() for _ in range(20))]).status == 200
        refused = client.push(device, 23, [event() for _ in range(20)])
        assert (refused.status, refused.json["code"]) == (429, "server.quota")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert Client(port, token(tmp_path, "other")).push("d", 1, [event()]).status == 200


def test_a_stop_answers_the_long_polls_first(tmp_path: Path) -> None:
    answers = []
    with served(settings(tmp_path)) as port:
        client = Client(port, token(tmp_path))
        device = client.register()
        waiting = threading.Thread(target=lambda: answers.append(client.changes(device, wait=50)))
        waiting.start()
        while b"xrec_long_polls 1" not in client.ask("GET", "/metrics").body:
            time.sleep(0.01)
        began = time.monotonic()
    waiting.join(20)
    assert answers[0].status == 200 and answers[0].json["rows"] == [] and time.monotonic() - began < 15


def test_a_second_server_of_one_sqlite_file_does_not_start(tmp_path: Path) -> None:
    from xrec_server.errors import ServerError

    with (
        served(settings(tmp_path)),
        pytest.raises(ServerError, match="another server") as caught,
        served(settings(tmp_path)),
    ):
        pass
    assert caught.value.code == "server.database_in_use"


def test_a_connection_serves_many_requests(client: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"status":"ok"}'
    connection.close()
