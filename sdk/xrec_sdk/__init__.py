"""Recommend on the device: open a signed bundle, keep a local profile, rank with onnxruntime."""

from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.conformance import check_conformance
from xrec_sdk.default import (
    close,
    consent,
    end_to_end,
    export_my_data,
    feedback,
    forget,
    init,
    recommend,
    record,
    score,
    set_consent,
    similar,
    start_sync,
    stop_sync,
    sync_status,
)
from xrec_sdk.errors import (
    BundleDamaged,
    BundleError,
    BundleUnsupported,
    BundleUntrusted,
    DataError,
    GateError,
    ProfileError,
    UsageError,
    XrecError,
)
from xrec_sdk.experiment import Arm, assign
from xrec_sdk.history import History, RepeatRule, Vocabulary
from xrec_sdk.manifest import Manifest
from xrec_sdk.profile import Event, Profile
from xrec_sdk.recommender import Recommender
from xrec_sdk.results import Reason, Recommendation
from xrec_sdk.runtime import Runtime
from xrec_sdk.version import __version__

__all__ = [
    "Arm",
    "Bundle",
    "BundleDamaged",
    "BundleError",
    "BundleUnsupported",
    "BundleUntrusted",
    "DataError",
    "Event",
    "GateError",
    "History",
    "Manifest",
    "Profile",
    "ProfileError",
    "Reason",
    "Recommendation",
    "Recommender",
    "RepeatRule",
    "Runtime",
    "UsageError",
    "Vocabulary",
    "XrecError",
    "__version__",
    "assign",
    "check_conformance",
    "close",
    "consent",
    "end_to_end",
    "export_my_data",
    "feedback",
    "forget",
    "init",
    "open_bundle",
    "recommend",
    "record",
    "score",
    "set_consent",
    "similar",
    "start_sync",
    "stop_sync",
    "sync_status",
]
