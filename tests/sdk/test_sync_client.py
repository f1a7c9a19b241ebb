"""The client of the profile sync, against a real server on loopback, and against servers that misbehave."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from xrec_sdk import Recommender, UsageError, XrecError
from xrec_sdk.profile import Profile
from xrec_sdk.sync import LIMITS
from xrec_sdk.sync_client import SyncClient, Timing
from xrec_sdk.sync_http import Connection, check_url
from xrec_sdk.sync_store import SyncStore

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
from served import served, settings, token, until

QUICK = Timing(wait_s=20, gather_s=0.0, look_every_s=0.1, first_delay_s=0.02, longest_delay_s=0.2)
NOW_MS = time.time_ns() // 1_000_000 - 10_000  # a server refuses what claims to be older than the retention


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with served(settings(folder)) as port:
        yield f"http://127.0.0.1:{port}", folder


@pytest.fixture
def join(server, tmp_path):
    """Return a function that opens a device's profile and syncs it for a user; all are closed at the end."""
    made = []

    def device(name, user, timing=QUICK):
        profile = Profile(tmp_path / f"{name}.db")
        for purpose in ("personalise", "sync"):
            profile.set_consent(purpose, True)
        made.append((SyncClient(profile, server[0], lambda: token(server[1], user), timing=timing), profile))
        return made[-1]

    yield device
    for client, profile in made:
        client.close()
        profile.close()


def items(profile):
    return sorted(event.item_id for event in profile.events())


def test_what_one_device_records_another_reads_and_an_erasure_reaches_both(join):
    (one, phone), (other, pc) = join("phone", "anna"), join("pc", "anna")
    phone.record("view", "early", "phone", NOW_MS)
    until(lambda: items(pc) == ["early"])
    pc.record("view", "late", "pc", NOW_MS + 1)
    until(lambda: items(phone) == ["early", "late"])
    until(lambda: one.status().queued == other.status().queued == 0)
    assert phone.events() == pc.events()
    until(lambda: one.status().state == other.status().state == "up_to_date" and one.status().last_contact_ms > 0)
    until(lambda: SyncStore(phone).standing().digest == SyncStore(pc).standing().digest)
    pc.forget(item_id="early")
    until(lambda: items(phone) == ["late"])
    pc.forget()
    until(lambda: items(phone) == [])


def test_users_do_not_see_each_other(join):
    (_, anna), (client, ben) = join("a", "anna-2"), join("b", "ben-2")
    anna.record("view", "hers", "phone", NOW_MS)
    ben.record("view", "his", "phone", NOW_MS)
    until(lambda: client.status().queued == 0 and client.status().state == "up_to_date")
    assert items(ben) == ["his"]


def test_a_push_of_many_is_sent_in_parts_compressed_and_arrives_once(join):
    (one, phone), (_, pc) = join("phone", "many"), join("pc", "many")
    for number in range(1_200):
        phone.record("view", f"sku-{number}", "phone", NOW_MS + number)
    until(lambda: one.status().queued == 0)
    until(lambda: len(pc.events()) == 1_200)
    assert [event.id for event in pc.events()] == [event.id for event in phone.events()]


def test_words_of_another_process_are_sent_too(join, tmp_path):
    (_, _), (_, pc) = join("phone", "two"), join("pc", "two")
    code = "import sys, xrec_sdk as x; x.Profile(sys.argv[1]).record('view', 'elsewhere', 'phone', int(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "phone.db"), str(NOW_MS)], check=True)
    until(lambda: items(pc) == ["elsewhere"])


def test_a_device_that_was_away_for_a_lease_gives_up_what_it_held_and_registers_anew(join, server, tmp_path):
    client, phone = join("phone", "away")
    phone.record("view", "old", "phone", NOW_MS)
    until(lambda: client.status().queued == 0 and client.status().state == "up_to_date")
    was = SyncStore(phone).standing().device
    client.close()
    later = LIMITS.lease_ms + 60_000
    away = Profile(tmp_path / "phone.db", clock_ms=lambda: time.time_ns() // 1_000_000 + later)
    away.record("view", "unsent", "phone", NOW_MS)
    again = SyncClient(away, server[0], lambda: token(server[1], "away"), timing=QUICK)
    until(lambda: SyncStore(away).standing().device not in ("", was) and again.status().state == "up_to_date")
    until(lambda: items(away) == ["old"])  # the server still has it; what was never checked is gone
    assert again.status().dead == 1
    again.close()
    away.close()


def test_close_returns_within_a_second_in_a_long_poll(join):
    client, _ = join("phone", "closer")
    until(lambda: client.status().state == "up_to_date")
    time.sleep(0.3)  # now it waits for news
    begun = time.monotonic()
    client.close()
    assert time.monotonic() - begun < 1.0
    assert not any(thread.is_alive() for thread in client._threads) and client.status().state == "off"


def test_of_two_clients_of_one_profile_one_waits_for_its_turn(join, server):
    client, profile = join("phone", "turns")
    until(lambda: client.status().state == "up_to_date")
    second = SyncClient(profile, server[0], lambda: token(server[1], "turns"), timing=QUICK)
    until(lambda: second.status().state == "elsewhere")
    client.close()
    until(lambda: second.status().state == "up_to_date")
    second.close()


@contextmanager
def answering(respond):
    """Serve ``respond(handler)`` for every request within the block; the value is the address and what was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append((self.path, dict(self.headers), self.rfile.read(int(self.headers.get("Content-Length", 0)))))
            respond(self)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}", asked
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def says(status, body=b"", **headers):
    def respond(handler):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return respond


@pytest.mark.parametrize(
    ("respond", "code"),
    [
        (says(503, b'{"code":"server.busy"}'), "server.busy"),
        (says(500, b"<html>"), "sync.refused"),
        (says(401), "sync.unauthorised"),
        (says(200, b"<html>the hotel's wifi</html>"), "sync.bad_answer"),
        (says(200, b"cut", Content_Encoding="gzip"), "sync.unreachable"),
        (says(200, gzip.compress(bytes(30_000_000)), Content_Encoding="gzip"), "sync.unreachable"),
        (says(302, b"", Location="http://127.0.0.1:1/"), "sync.refused"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "sync.unreachable"),
    ],
)
def test_a_server_that_misbehaves_is_asked_again_later_and_named_in_the_status(respond, code):
    profile = Profile(":memory:")
    profile.set_consent("personalise", True)
    profile.set_consent("sync", True)
    with answering(respond) as (url, asked):
        client = SyncClient(profile, url, lambda: "a-token", timing=QUICK)
        until(lambda: len(asked) >= 3 and client.status().last_error == code)
        assert client.status().state == ("unauthorised" if code == "sync.unauthorised" else "retrying")
        profile.record("view", "still", "phone", NOW_MS)
        client.close()
    assert items(profile) == ["still"] and client.status().queued == 3
    profile.close()


@pytest.mark.parametrize(
    ("status", "body", "is_given_up"),
    [(400, b"<html>", False), (413, b"<html>", False), (400, b'{"code":"sync.malformed"}', True)],
)
def test_only_on_the_server_s_own_word_is_an_operation_given_up(join, status, body, is_given_up):
    client, phone = join("phone", f"proxied-{status}-{is_given_up}")
    until(lambda: client.status().state == "up_to_date" and client.status().queued == 0)
    client.close()
    phone.record("view", "said", "phone", NOW_MS)
    with answering(says(status, body)) as (url, asked):
        other = SyncClient(phone, url, lambda: "a-token", timing=QUICK)
        until(lambda: sum(path.endswith("/push") for path, *_ in asked) >= 4)
        assert other.status().dead == is_given_up
        other.close()
    assert items(phone) == ["said"] or is_given_up


def test_retry_after_is_obeyed():
    profile = Profile(":memory:")
    profile.set_consent("sync", True)
    with answering(says(429, b"", Retry_After="3600")) as (url, asked):
        client = SyncClient(profile, url, lambda: "a-token", timing=QUICK)
        until(lambda: client.status().state == "retrying")
        time.sleep(0.5)  # 25 times the first delay
        client.close()
    assert len(asked) == 1
    profile.close()


def test_nothing_is_asked_before_consent_to_sync(tmp_path):
    profile = Profile(tmp_path / "p.db")
    profile.set_consent("personalise", True)
    profile.record("view", "a", "phone", NOW_MS)
    with answering(says(503)) as (url, asked):
        client = SyncClient(profile, url, lambda: pytest.fail("asked for a token"), timing=QUICK)
        until(lambda: client.status().state == "no_consent")
        time.sleep(0.3)
        assert asked == []
        client.close()
    profile.close()


def test_a_token_that_is_no_longer_taken_is_asked_for_anew(join, server):
    given = []

    def provider():
        given.append(len(given))
        return token(server[1], "renewed") if given[-1] else token(server[1], "renewed", hours=-1)

    connection = Connection(server[0], provider)
    asked = b'{"checked":0,"device":"","floor":0,"generation":1,"v":1}'
    with pytest.raises(XrecError) as caught:
        connection.ask("POST", "/v1/profile/register", asked)
    assert caught.value.code == "sync.unauthorised"
    assert json.loads(connection.ask("POST", "/v1/profile/register", asked))["device"] and given == [0, 1]
    connection.close()


def test_a_token_provider_that_fails_is_no_crash():
    profile = Profile(":memory:")
    profile.set_consent("sync", True)
    for provider in (lambda: 1 / 0, lambda: "", lambda: None, lambda: "a\r\nb"):
        client = SyncClient(profile, "http://127.0.0.1:9", provider, timing=QUICK)
        until(lambda client=client: client.status().state == "unauthorised")
        client.close()
    profile.close()


@pytest.mark.parametrize("url", ["http://example.org", "ftp://localhost", "https://", "https://u:p@host", "host", ""])
def test_an_address_that_is_not_safe_is_a_usage_error(url):
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert caught.value.code == "usage.sync_url"
    assert check_url("https://sync.example.org/base/") == "https://sync.example.org/base"


def test_recommend_and_record_use_no_socket(shared_bundle, tmp_path):
    code = """
import socket, sys
def denied(*_, **__):
    raise AssertionError("a socket was made")
socket.socket = socket.create_connection = socket.getaddrinfo = denied
import xrec_sdk
with xrec_sdk.Recommender(sys.argv[1], sys.argv[2], trusted_keys=[sys.argv[3]]) as made:
    for purpose in ("personalise", "sync"):
        made.set_consent(purpose, True)
    made.record("view", "sku-5", device="phone")
    assert made.recommend(3) and made.forget() == 1 and made.export_my_data() and made.sync_status().queued == 3
print(sorted({"urllib3", "ssl", "apsw"} & set(sys.modules)))
"""
    words = [sys.executable, "-c", code, str(shared_bundle.folder), str(tmp_path / "p.db"), shared_bundle.key]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_recommender_syncs_and_its_close_ends_it(shared_bundle, server, tmp_path):
    options = {"trusted_keys": [shared_bundle.key]}
    with (
        Recommender(shared_bundle.folder, tmp_path / "one.db", **options) as one,
        Recommender(shared_bundle.folder, tmp_path / "two.db", **options) as other,
    ):
        assert one.sync_status().state == "off"
        for made in (one, other):
            for purpose in ("personalise", "sync"):
                made.set_consent(purpose, True)
            made.start_sync(server[0], lambda: token(server[1], "recommender"))
        one.record("purchase", "sku-0", device="phone")
        until(lambda: "sku-0" not in [item.item_id for item in other.recommend(300)])
        client = one._sync
        one.stop_sync()
        assert one.sync_status().state == "off" and not any(thread.is_alive() for thread in client._threads)
    assert threading.active_count() < 20
