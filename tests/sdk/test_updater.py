"""Updates over the air: two slots, pending until good, a floor, resume; whatever happens a bundle opens."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

pytest.importorskip("tuf")
sys.path.insert(0, str(Path(__file__).parent))
from update_server import Served, serve
from vectors import make_vectors
from vectors.releases import BASE, write_release
from xrec_export.publish import Publication, publish
from xrec_sdk.bundle import open_bundle
from xrec_sdk.errors import BundleDamaged, BundleError, BundleUntrusted, DataError, UsageError
from xrec_sdk.signature import generate_key
from xrec_sdk.slots import MAX_TRIES
from xrec_sdk.updater import BundleUpdater

KEY, PEM = make_vectors.public_key(), make_vectors.private_pem()
ONLINE, _ = generate_key()
NAME = "lowpass vectors"
SEED = 5
NOW = datetime.now(timezone.utc)


def how(**changes: object) -> Publication:
    return Publication(**{"channel": "stable", "release_pem": PEM, "online_pem": ONLINE, "now": NOW, **changes})  # type: ignore[arg-type]


class Shop:
    """A repository behind a server, and the updater of a device."""

    def __init__(self, folder: Path, served: Served) -> None:
        self.folder, self.served, self.repository = folder, served, served.folder

    def release(self, number: int, **changes: object) -> None:
        """Publish a release whose card says its number."""
        card = (BASE / "card.md").read_bytes() + f"release {number}\n".encode() * 50
        path = write_release(self.folder / f"{number}.xrec", number, files={"card.md": card})
        publish(path, self.repository, how(**changes))

    def device(self, **changes: object) -> BundleUpdater:
        root = self.folder / "1.root.json"
        if not root.exists():
            shutil.copy(self.repository / "metadata" / "1.root.json", root)
        options = {"name": NAME, "root": root, "trusted_keys": [KEY], **changes}
        return BundleUpdater(self.folder / "device", self.served.url, **options)  # type: ignore[arg-type]

    def targets_asked(self) -> list[tuple[str, int]]:
        return [(path.rpartition(".")[2], begin) for path, begin in self.served.asked if path.startswith("/targets/")]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with serve(tmp_path / "repository") as served:
        made = Shop(tmp_path, served)
        made.release(4)
        yield made


def test_what_was_published_is_installed_and_opened(shop: Shop) -> None:
    device = shop.device()
    with pytest.raises(BundleDamaged):
        device.open()
    assert device.is_stale
    assert device.check().state == "installed"
    assert device.open().manifest.release == 4
    assert not device.is_stale
    assert device.check().state == "current"
    assert shop.targets_asked() == [("xrec", 0)]


def test_the_shipped_bundle_serves_until_a_newer_one_is_there(shop: Shop) -> None:
    device = shop.device(shipped=BASE)
    assert device.open().manifest.release == 3
    device.check()
    assert device.open().manifest.release == 4
    newer_app = shop.device(shipped=write_release(shop.folder / "shipped.xrec", 9))
    device.confirm(device.open())
    assert newer_app.open().manifest.release == 9 and newer_app.check().state == "current"


def test_a_pending_bundle_that_nobody_confirms_is_given_up_for_good(shop: Shop) -> None:
    device = shop.device(shipped=BASE)
    device.check()
    assert [shop.device(shipped=BASE).open().manifest.release for _ in range(MAX_TRIES + 2)] == [4] * MAX_TRIES + [3, 3]
    assert device.check().state == "current" and device.open().manifest.release == 3
    shop.release(5)
    assert device.check().state == "installed" and device.open().manifest.release == 5


def test_a_confirmed_bundle_stays_and_is_the_floor(shop: Shop) -> None:
    device = shop.device(shipped=BASE)
    device.check()
    device.confirm(device.open())
    assert {device.open().manifest.release for _ in range(MAX_TRIES + 2)} == {4}
    shutil.rmtree(next((shop.folder / "device").glob("slot-*")))
    with pytest.raises(BundleUntrusted) as caught:
        device.open()  # the shipped release 3 is below the floor
    assert caught.value.code == "bundle.rollback"
    assert device.check().state == "installed" and device.open().manifest.release == 4


def test_the_next_release_comes_as_a_delta(shop: Shop) -> None:
    device = shop.device()
    device.check()
    device.confirm(device.open())
    shop.release(5)
    shop.served.asked.clear()
    assert device.check().release == 5
    assert shop.targets_asked() == [("delta", 0)]
    bundle = device.open()
    assert bundle.manifest.release == 5 and "release 5" in bundle.card
    device.confirm(bundle)
    slots = [path.name for path in (shop.folder / "device").glob("slot-*")]
    assert len(slots) == 1 and slots[0].startswith("slot-5-")


def test_a_delta_that_does_not_come_right_is_no_matter(shop: Shop) -> None:
    device = shop.device()
    device.check()
    device.confirm(device.open())
    shop.release(5)
    slot = next((shop.folder / "device").glob("slot-4-*"))
    (slot / "card.md").write_bytes(b"changed on disk")
    assert device.check().state == "installed" and device.open().manifest.release == 5
    assert [kind for kind, _ in shop.targets_asked()] == ["xrec", "delta", "xrec"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(shop: Shop, knows_ranges: bool) -> None:
    device = shop.device(shipped=BASE)
    shop.served.cut_targets_after = 100_000
    shop.served.knows_ranges = knows_ranges
    assert device.check().state == "offline" and device.open().manifest.release == 3
    assert shop.device().check().state == "offline"
    shop.served.cut_targets_after = None
    assert device.check().state == "installed" and device.open().manifest.release == 4
    begun = [begin for _, begin in shop.targets_asked()]
    assert 0 < begun[1] < begun[2] if knows_ranges else begun == [0, 0, 0]


def test_offline_is_no_error_and_the_bundle_at_hand_goes_on(shop: Shop) -> None:
    device = shop.device(shipped=BASE)
    device.check()
    device.confirm(device.open())
    offline = BundleUpdater(
        shop.folder / "device", "http://127.0.0.1:9", name=NAME, root=device._root, trusted_keys=[KEY], shipped=BASE
    )
    began = time.monotonic()
    assert offline.check().state == "offline"
    assert offline.open().manifest.release == 4 and time.monotonic() - began < 60


def test_what_has_expired_is_stale_and_goes_on(shop: Shop) -> None:
    device = shop.device()
    device.check()
    device.confirm(device.open())
    later = int((NOW + timedelta(days=8)).timestamp() * 1000)
    assert shop.device(clock_ms=lambda: later).is_stale and not device.is_stale
    shop.release(5, now=NOW - timedelta(days=30))
    assert device.check().state == "expired"
    assert device.open().manifest.release == 4


def test_publishing_again_renews(shop: Shop) -> None:
    publish(shop.folder / "4.xrec", shop.repository, how(now=NOW - timedelta(days=30)))
    assert shop.device().check().state == "expired"
    publish(shop.folder / "4.xrec", shop.repository, how())
    device = shop.device()
    assert device.check().state == "installed" and device.open().manifest.release == 4


def test_an_older_state_of_the_repository_is_refused(shop: Shop) -> None:
    shutil.copytree(shop.repository, shop.folder / "old")
    shop.release(5)
    device = shop.device()
    device.check()
    device.confirm(device.open())
    shop.served.folder = shop.folder / "old"
    with pytest.raises(BundleUntrusted) as caught:
        device.check()
    assert caught.value.code == "update.repository" and device.open().manifest.release == 5


def test_a_repository_of_other_keys_is_refused(shop: Shop) -> None:
    other = generate_key()[0]
    publish(shop.folder / "4.xrec", shop.folder / "evil", how(online_pem=other))
    device = shop.device()
    shop.served.folder = shop.folder / "evil"
    with pytest.raises(BundleUntrusted):
        device.check()


def test_a_changed_target_never_becomes_a_bundle(shop: Shop) -> None:
    target = next((shop.repository / "targets" / "stable").iterdir())
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)
    device = shop.device(shipped=BASE)
    assert device.check().state == "offline" and device.open().manifest.release == 3
    assert not list((shop.folder / "device").glob("slot-*"))


def test_a_bundle_of_a_key_that_the_app_does_not_pin_is_refused_and_not_asked_for_again(shop: Shop) -> None:
    device = shop.device(trusted_keys=[generate_key()[1]])
    with pytest.raises(BundleUntrusted) as caught:
        device.check()
    assert caught.value.code == "bundle.key_untrusted"
    assert device.check().state == "current"


def test_a_bundle_that_answers_wrongly_on_this_device_is_refused(shop: Shop) -> None:
    golden = json.loads((BASE / "conformance.json").read_bytes())
    golden["cases"][1]["top_scores"][0] += 1
    device = shop.device(shipped=BASE)
    device.check()
    path = write_release(shop.folder / "7.xrec", 7, files={"conformance.json": json.dumps(golden).encode()})
    with pytest.raises(BundleError):
        publish(path, shop.repository, how())


def test_a_pending_bundle_that_was_changed_on_disk_gives_way_to_the_one_before(shop: Shop) -> None:
    device = shop.device()
    device.check()
    device.confirm(device.open())
    shop.release(5)
    device.check()
    pending = next((shop.folder / "device").glob("slot-5-*"))
    (pending / "items.bin").write_bytes(bytes(10))
    assert device.open().manifest.release == 4
    assert device.check().state == "current"  # given up for good


def test_a_state_that_nobody_wrote_is_as_none(shop: Shop) -> None:
    device = shop.device(shipped=BASE)
    device.check()
    for text in ("", "[]", "{", '{"current": 5}', '{"current": {"folder": 1}, "pending": null, "failed": []}'):
        (shop.folder / "device" / "state.json").write_text(text)
        assert device.open().manifest.release == 3
    assert device.check().state == "installed" and device.open().manifest.release == 4


def test_a_release_is_published_once(shop: Shop) -> None:
    other = write_release(shop.folder / "other.xrec", 4, files={"card.md": b"another"})
    for path in (other, BASE):
        with pytest.raises(UsageError) as caught:
            publish(path, shop.repository, how())
        assert caught.value.code == "usage.release"
    with pytest.raises(UsageError):
        publish(shop.folder / "4.xrec", shop.repository, how(online_pem=generate_key()[0]))
    (shop.repository / "metadata" / "timestamp.json").write_text("{}")
    with pytest.raises(DataError) as damaged:
        publish(shop.folder / "4.xrec", shop.repository, how())
    assert damaged.value.code == "data.repository"


def test_the_updater_imports_python_tuf_only_to_check() -> None:
    code = (
        "import sys, xrec_sdk.updater as u; print([n for n in ('tuf', 'urllib3', 'onnxruntime') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


DEVICE = """
import sys
from xrec_sdk.conformance import check_conformance
from xrec_sdk.runtime import Runtime
from xrec_sdk.updater import BundleUpdater

folder, url, root, key, shipped = sys.argv[1:]
device = BundleUpdater(folder, url, name="lowpass vectors", root=root, trusted_keys=[key], shipped=shipped)
while True:
    bundle = device.open()
    assert check_conformance(Runtime(bundle), bundle)
    print("good", bundle.manifest.release, flush=True)
    device.confirm(bundle)
    print(device.check().state, flush=True)
"""


def test_a_process_killed_at_any_moment_of_an_update_leaves_a_bundle_that_opens(shop: Shop) -> None:
    kills = int(os.environ.get("XREC_KILLS", "5"))
    dice = random.Random(SEED)
    root = shop.repository / "metadata" / "1.root.json"
    words = [sys.executable, "-c", DEVICE, shop.folder / "device", shop.served.url, root, KEY, BASE]
    floor = 0
    for number in range(5, 5 + kills):
        shop.release(number)
        process = subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline().split()
        assert first and first[0] == "good" and int(first[1]) >= floor, process.stderr.read()
        floor = int(first[1])
        # The check that follows takes some tens of milliseconds.
        time.sleep(dice.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        opened = open_bundle(_at_hand(shop), trusted_keys=[KEY])
        assert opened.manifest.release >= floor
    device = shop.device(shipped=BASE)
    device.check()
    assert device.open().manifest.release == 4 + kills


def _at_hand(shop: Shop) -> Path:
    state = shop.device(shipped=BASE)._slots.read()
    slot = state.current or state.pending
    return BASE if slot is None else shop.folder / "device" / slot.folder
