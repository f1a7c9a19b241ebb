"""A device of its own process that pairs and kills itself: pairing_device.py DB URL TOKEN new STAGE, or ... old."""

from __future__ import annotations

import os
import signal
import sys

from xrec_sdk.end_to_end import EndToEnd, Mailbox, seal_profile
from xrec_sdk.profile import Profile
from xrec_sdk.sync_client import SyncClient, Timing

path, url, bearer, side, *rest = sys.argv[1:]
profile = Profile(path)
for purpose in ("personalise", "sync"):
    profile.set_consent(purpose, True)
seal_profile(profile)
client = SyncClient(profile, url, lambda: bearer, timing=Timing(gather_s=0.0, look_every_s=0.1))
keys = EndToEnd(profile, client)


def die() -> None:
    """End without a word, as a kill does."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if side == "new":
    pairing = keys.pair("pc")
    print(pairing.text, flush=True)
    if rest == ["text"]:
        die()
    print(pairing.digits(timeout_s=60), flush=True)
    if rest == ["digits"]:
        die()
    pairing.confirm(timeout_s=60)
    die()

keys.create("phone")
print("made", flush=True)
approval = keys.approve(sys.stdin.readline().strip())
print(approval.digits(timeout_s=60), flush=True)


class Mute(Mailbox):
    """A mailbox that dies with the letter in its hand."""

    def leave(self, device: str, letter: str) -> None:
        """Die."""
        die()


approval._mailbox.__class__ = Mute
approval.confirm()
