"""Run the two graphs of a bundle with onnxruntime, on the verified bytes and on the one mapped item table."""

# B histories, L events in a history, D width, N items, Np items with pad rows, E bias entries, k answers, C context

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.bundle import Bundle
from xrec_sdk.context import CONTEXT
from xrec_sdk.errors import BundleDamaged, BundleUnsupported, UsageError
from xrec_sdk.history import History
from xrec_sdk.packed_scan import SCAN_TABLE, packed_scorer, packs_anew
from xrec_sdk.query import query_buckets

CPU = "CPUExecutionProvider"
CODES = ("events", "devices", "gaps")
ENCODER_INPUTS = ("vectors", *CODES)
QUERIES_INPUT = "queries"
"""What the encoder has besides where searches are read: (B, L, G) int32, of query.query_buckets."""
BOUND = ("item_bias", "item_prior", "bias_rows", "bias_values")
SCORER_INPUTS = ("user", *BOUND, "k")
RANKER_INPUT, RANKER_OUTPUT = "context", "top_probabilities"
"""What the scorer has besides in a bundle with a ranker."""
Top = tuple[NDArray[np.int32], NDArray[np.float32], "NDArray[np.float32] | None"]
"""Rows, scores and, with a ranker, probabilities, (k,) each, best score first."""
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


class Runtime:
    """The sessions of one bundle; calls may come from several threads at once.

    ``providers`` are onnxruntime's names in order of preference; those that this onnxruntime lacks are left out and the
    CPU stands last. Where a preferred one fails to load the bundle, the CPU takes over. ``fallback`` says what was
    left out and why, None where all is as wished.
    ``session_options`` makes the options of one session, for a host that sets its own; the default is ``num_threads``
    threads that do not spin.
    """

    providers: tuple[str, ...]
    fallback: str | None = None

    def __init__(
        self,
        bundle: Bundle,
        *,
        providers: Sequence[str] | None = None,
        num_threads: int = 1,
        session_options: Callable[[], Any] | None = None,
    ) -> None:
        if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 0:
            raise UsageError("usage.num_threads", f"num_threads is {num_threads!r}; expected a whole number, 0 for all")
        # The sessions read the bundle's mapped arrays in place: they must live as long as the sessions do.
        self._bundle = bundle
        self._initializers = _initializers(bundle)
        self._item_count = bundle.manifest.item_count
        self._width = bundle.manifest.width
        prior = bundle.prior.reshape(-1)
        self._priors = {True: prior, False: np.zeros_like(prior)}
        make_options = session_options or (lambda: _options(num_threads))
        wanted, missing = _available(providers)
        if missing:
            self.fallback = f"this onnxruntime has no {', '.join(missing)}; {wanted[0]} is used"
        try:
            self._encoder, self._scorer = _sessions(bundle, self._initializers, wanted, make_options)
        except BundleDamaged as failure:
            if wanted == [CPU]:
                raise
            self.fallback = f"{wanted[0]} could not load the bundle ({failure}); the CPU is used"
            self._encoder, self._scorer = _sessions(bundle, self._initializers, [CPU], make_options)
        self._calls = threading.local()
        self.providers = tuple(self._scorer.get_providers())

    def encode(self, history: History) -> NDArray[np.float32]:
        """Return the user vector of a history, (D,) float32; zeros for an empty one."""
        if not len(history):
            return np.zeros(self._width, dtype=np.float32)
        call = getattr(self._calls, "encoder", None)
        if call is None or call.length != len(history):
            call = self._calls.encoder = _EncoderCall(self._encoder, self._bundle, len(history))
        user: NDArray[np.float32] = call.run(history)
        return user if isfinite(sum(user.tolist())) else _finite(user)

    def encode_batch(
        self, vectors: NDArray[np.float32], codes: NDArray[np.int32], queries: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return the user vectors (B, D) of histories of one length, zeros for empty ones; see :func:`feeds_of`."""
        if not codes[0].size:
            return np.zeros((codes.shape[1], self._width), dtype=np.float32)
        users = _run(self._encoder, ["user"], feeds_of(self._bundle, vectors, codes, queries))[0]
        if users.shape != (codes.shape[1], self._width):
            raise BundleDamaged("bundle.graph_failed", f"encoder.onnx gave user vectors of shape {users.shape}")
        return _finite(users)

    def top(
        self,
        user: NDArray[np.float32],
        k: int,
        item_bias: NDArray[np.float32],
        bias_rows: NDArray[np.int32],
        bias_values: NDArray[np.float32],
        *,
        with_prior: bool = True,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the best ``k`` rows and their scores, best first, fewer where ``item_bias`` forbids the rest.

        ``user`` is (D,); ``item_bias`` (Np,) from :meth:`no_bias`, -inf to forbid; ``bias_rows`` are distinct. Without
        the bundle's prior, the user vector and the biases alone decide.
        """
        rows, scores, _ = self._top(user, k, (item_bias, self._priors[with_prior], bias_rows, bias_values))
        return rows, scores

    def top_probable(
        self,
        user: NDArray[np.float32],
        k: int,
        item_bias: NDArray[np.float32],
        bias: tuple[NDArray[np.int32], NDArray[np.float32]],
        context: NDArray[np.float32],
    ) -> Top:
        """Return what :meth:`top` does and each row's probability; ``context`` (C,) is of xrec_sdk.context.

        The order is that of the scores. There are no probabilities where the bundle has no ranker.
        """
        return self._top(user, k, (item_bias, self._priors[True], *bias), context)

    def _top(
        self,
        user: NDArray[np.float32],
        k: int,
        of_items: tuple[NDArray[Any], ...],
        context: NDArray[np.float32] | None = None,
    ) -> Top:
        if not 1 <= k <= self._item_count:
            raise UsageError("usage.k", f"k is {k}; the graph answers 1 to {self._item_count}")
        call = getattr(self._calls, "scorer", None)
        if call is None or len(call.rows) != k:
            has_ranker = self._bundle.manifest.ranker is not None
            call = self._calls.scorer = _ScorerCall(self._scorer, k, self._width, has_ranker=has_ranker)
        rows, scores, found = call.run(user, of_items, context)
        if not isfinite(sum(scores.tolist())):  # one pass over the usual list; -inf ends one that is not full
            allowed = scores > -np.inf
            rows, scores, found = rows[allowed], scores[allowed], found if found is None else found[allowed]
            if not np.isfinite(scores).all():
                raise BundleDamaged("bundle.graph_failed", "scorer.onnx gave a score that is not finite")
        found_rows = rows.tolist()
        if found_rows and not 0 <= min(found_rows) <= max(found_rows) < self._item_count:
            raise BundleDamaged("bundle.graph_failed", "scorer.onnx gave a row that is not there")
        if context is None or found is None:
            return rows, scores, None
        if len(found) and not 0 < np.minimum.reduce(found) <= np.maximum.reduce(found) < 1:  # nor with a NaN
            raise BundleDamaged("bundle.graph_failed", "scorer.onnx gave a probability that is not between 0 and 1")
        return rows, scores, found

    def no_bias(self) -> NDArray[np.float32]:
        """Return the item bias that allows every item, (Np,) float32, read-only: copy it to forbid some."""
        return self._bundle.bias.reshape(-1)


def feeds_of(
    bundle: Bundle, vectors: NDArray[np.float32], codes: NDArray[np.int32], queries: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Return the encoder's inputs for histories of one length.

    ``vectors`` (B, L, D) as of :func:`event_vectors`; ``codes`` (4, B, L) are rows, events, devices and gaps;
    ``queries`` are the reduced queries of the rows below 0, history after history.
    """
    rows, *others = codes
    feeds: dict[str, NDArray[Any]] = {"vectors": vectors, **dict(zip(CODES, others, strict=True))}
    if bundle.manifest.vocabulary.query_buckets:
        feeds[QUERIES_INPUT] = query_buckets(rows.reshape(-1), queries).reshape(*rows.shape, -1)
    return feeds


def event_vectors(bundle: Bundle, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the item vectors of rows (L,), (L, D); zeros for searches, whose rows are below 0."""
    vectors = bundle.item_vectors(rows.clip(min=0))
    vectors[rows < 0] = 0
    return vectors


class _EncoderCall:
    """The encoder's inputs and output as one thread has bound them, for histories of one length."""

    def __init__(self, session: Any, bundle: Bundle, length: int) -> None:
        self.length = length
        self._session = session
        self._bundle = bundle
        self._rows: list[int] = []
        self._vectors = np.empty((1, length, bundle.manifest.width), dtype=np.float32)
        self._codes = np.empty((len(CODES), 1, length), dtype=np.int32)
        self._user = np.empty((1, bundle.manifest.width), dtype=np.float32)
        self._binding = session.io_binding()
        for name, array in zip(ENCODER_INPUTS, (self._vectors, *self._codes), strict=True):
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._binding.bind_output("user", "cpu", 0, self._user.dtype, self._user.shape, self._user.ctypes.data)

    def run(self, history: History) -> NDArray[np.float32]:
        """Return the user vector (D,) of a history."""
        self._read(history.rows)
        for codes, given in zip(self._codes, (history.events, history.devices, history.gaps), strict=True):
            codes[0] = given
        try:
            if self._bundle.manifest.vocabulary.query_buckets:
                self._binding.bind_cpu_input(QUERIES_INPUT, query_buckets(history.rows, history.queries)[None])
            self._session.run_with_iobinding(self._binding)
        except Exception as cause:  # onnxruntime's errors share no base besides Exception
            raise _failed(cause) from cause
        user: NDArray[np.float32] = self._user[0].copy()
        return user

    def _read(self, rows: NDArray[np.int32]) -> None:
        """Set the vectors; after one more event all but the last stand there, and need not come from slower memory."""
        listed, vectors = rows.tolist(), self._vectors[0]
        is_one_later = listed[:-1] == self._rows[1:]
        self._rows = []  # where reading fails, the next call trusts nothing
        if is_one_later:
            vectors[:-1] = vectors[1:]
            vectors[-1] = self._bundle.item_vector(listed[-1]) if listed[-1] >= 0 else 0
        else:
            vectors[:] = event_vectors(self._bundle, rows)
        self._rows = listed


class _ScorerCall:
    """The scorer's inputs and outputs as one thread has bound them, for one k; an unchanged input is not bound anew."""

    def __init__(self, session: Any, k: int, width: int, *, has_ranker: bool) -> None:
        self.rows = np.empty(k, dtype=np.int32)
        self.scores = np.empty(k, dtype=np.float32)
        self.probabilities = np.empty(k, dtype=np.float32) if has_ranker else None
        self._session = session
        self._binding = session.io_binding()
        self._context = np.zeros(len(CONTEXT), dtype=np.float32)
        if has_ranker:
            context = self._context
            self._binding.bind_input(RANKER_INPUT, "cpu", 0, context.dtype, context.shape, context.ctypes.data)
        user = self._user = np.zeros((1, width), dtype=np.float32)
        self._binding.bind_input("user", "cpu", 0, user.dtype, user.shape, user.ctypes.data)
        self._bound: list[NDArray[Any] | None] = [None] * len(BOUND)
        self._binding.bind_cpu_input("k", np.asarray([k], dtype=np.int32))
        outputs = {"top_rows": self.rows, "top_scores": self.scores, RANKER_OUTPUT: self.probabilities}
        for name, array in outputs.items():
            if array is not None:
                self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(
        self, user: NDArray[np.float32], of_items: tuple[NDArray[Any], ...], context: NDArray[np.float32] | None
    ) -> Top:
        """Run on the user (D,), the item bias, the item prior, the bias rows and the bias values, and the context."""
        if user.shape != self._user.shape[1:]:
            raise UsageError("usage.user", f"the user vector has shape {user.shape}; expected {self._user.shape[1:]}")
        self._user[0] = user
        if context is not None:
            self._context[:] = context
        try:
            for place, (name, array) in enumerate(zip(BOUND, of_items, strict=True)):
                if self._bound[place] is not array:
                    self._binding.bind_cpu_input(name, array)
                    # What changes in an array that is read in place is seen without a second binding.
                    self._bound[place] = array if array.flags.c_contiguous else None
            self._session.run_with_iobinding(self._binding)
        except Exception as cause:  # onnxruntime's errors share no base besides Exception
            raise _failed(cause) from cause
        found = self.probabilities
        return self.rows.copy(), self.scores.copy(), found if found is None else found.copy()


def _available(providers: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the providers to use, the CPU last, and those that this onnxruntime lacks."""
    import onnxruntime

    known, wished = onnxruntime.get_available_providers(), [name for name in providers or () if name != CPU]
    return [*(name for name in wished if name in known), CPU], [name for name in wished if name not in known]


def _options(num_threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _initializers(bundle: Bundle) -> dict[str, Any]:
    import onnxruntime

    arrays = {"item_table": bundle.table, "item_scale": bundle.scale, "item_features": bundle.features}
    return {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items() if array is not None
    }


def _sessions(
    bundle: Bundle, values: dict[str, Any], providers: list[str], make_options: Callable[[], Any]
) -> tuple[Any, Any]:
    # A graph names items.bin as external data, and onnxruntime wants that path to exist. It must not read the file a
    # second time, unverified: it finds an empty one, and uses the mapped arrays that are handed in (without a copy;
    # add_external_initializers would copy them).
    with tempfile.TemporaryDirectory(prefix="xrec-") as folder:
        (Path(folder) / "items.bin").touch()
        encoder = _session(bundle.encoder, "encoder.onnx", providers, make_options(), {}, folder)
        scorer = _scorer_session(bundle, values, providers, make_options(), folder)
    reads_queries = bundle.manifest.vocabulary.query_buckets > 0
    inputs = (*ENCODER_INPUTS, QUERIES_INPUT) if reads_queries else ENCODER_INPUTS
    _check_names(encoder, "encoder.onnx", inputs, ("user",))
    has_ranker = bundle.manifest.ranker is not None
    _check_names(
        scorer,
        "scorer.onnx",
        (*SCORER_INPUTS, *([RANKER_INPUT] if has_ranker else [])),
        ("top_rows", "top_scores", *([RANKER_OUTPUT] if has_ranker else [])),
    )
    return encoder, scorer


def _scorer_session(bundle: Bundle, values: dict[str, Any], providers: list[str], options: Any, folder: str) -> Any:
    """Make the scorer's session; what it reads besides is added to ``values``, which live as long as the session."""
    import onnxruntime

    packed = packed_scorer(bundle.scorer, bundle.table) if providers == [CPU] and packs_anew() else None
    if packed:
        graph, matrix = packed
        values[SCAN_TABLE] = onnxruntime.OrtValue.ortvalue_from_numpy(matrix)
    else:
        graph = bundle.scorer
    # Prepacking the scan's product makes a second copy of the table.
    options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
    return _session(graph, "scorer.onnx", providers, options, values, folder)


def _session(graph: bytes, name: str, providers: list[str], options: Any, values: dict[str, Any], folder: str) -> Any:
    import onnxruntime

    # BASIC folds the encoder's stored int8 weights into float32 once; higher levels only rewrite nodes.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry(_FOLDER_KEY, folder)
    # A table of float16 is folded into float32 while the session is made, which reads the tensor itself: a copy.
    halves = [initializer for initializer, value in values.items() if value.data_type() == "tensor(float16)"]
    options.add_external_initializers(halves, [values[initializer] for initializer in halves])
    for initializer in values.keys() - set(halves):
        options.add_initializer(initializer, values[initializer])
    try:
        return onnxruntime.InferenceSession(graph, sess_options=options, providers=providers)
    except Exception as cause:  # onnxruntime's errors share no base besides Exception
        if "opset" in str(cause) and "support" in str(cause):
            raise BundleUnsupported("bundle.opset", f"this onnxruntime is too old for {name}: {cause}") from cause
        raise BundleDamaged("bundle.graph_malformed", f"onnxruntime can't load {name}: {cause}") from cause


def _check_names(session: Any, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    found = {value.name for value in session.get_inputs()}, {value.name for value in session.get_outputs()}
    if found != (set(inputs), set(outputs)):
        raise BundleDamaged(
            "bundle.graph_malformed", f"{name} has inputs {sorted(found[0])} and outputs {sorted(found[1])}"
        )


def _finite(users: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(users).all():
        raise BundleDamaged("bundle.graph_failed", "encoder.onnx gave a user vector that is not finite")
    return users


def _run(session: Any, outputs: list[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    try:
        results: list[NDArray[Any]] = session.run(outputs, feeds)
    except Exception as cause:  # onnxruntime's errors share no base besides Exception
        raise _failed(cause) from cause
    return results


def _failed(cause: Exception) -> BundleDamaged:
    return BundleDamaged("bundle.graph_failed", f"onnxruntime can't run the bundle's graph: {cause}")
