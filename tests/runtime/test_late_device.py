"""Our memory pool, backends, bank and tracker on a GPU that runs late equal the CPU bit by bit.

The device is in `tests/helpers/late_device`. Deliberate faults show that it would see them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import Sam2VideoModel

from sam2_edge import BackendError, Bundle, VideoTracker
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.runtime.backends import contexts, open_backend
from sam2_edge.runtime.backends.cuda.commands import Commands
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory
from sam2_edge.runtime.memory.rows import MemoryRows
from tests.helpers.late_device import LateDevice, scripts
from tests.helpers.late_device.backends import LATE_NAMES, LateBackend, late_backend
from tests.helpers.late_device.scripts import Answer, Script, answers, answers_in_turn, assert_equal
from tests.helpers.models import loaded

ENGINES = 5
"""Engine runs of a frame with one batch: encoder, attention, decoder, bits and memory encoder."""


@pytest.fixture(params=LATE_NAMES)
def late(
    request: pytest.FixtureRequest, late_device: LateDevice, monkeypatch: pytest.MonkeyPatch
) -> LateBackend:
    return late_backend(request.param, late_device, monkeypatch)


@pytest.fixture(scope="module")
def on_cpu() -> Callable[..., list[list[Answer]]]:
    """Runs a script on the CPU in the same batches, once for all backends with these."""
    found: dict[tuple[Any, ...], list[list[Answer]]] = {}

    def run(
        script: Script, bundle: Bundle, late: LateBackend, **options: Any
    ) -> list[list[Answer]]:
        key = (script, bundle.path, late.name == "cuda", *sorted(options.items()))
        if key not in found:
            backend = open_backend(bundle, "cpu", threads=1)
            tracker = VideoTracker(late.bundle(bundle), backend=backend, **options)
            found[key] = answers(script, tracker, logits_every=1)
        return found[key]

    return run


def compare(
    late: LateBackend,
    bundle: Bundle,
    script: Script,
    on_cpu: Callable[..., list[list[Answer]]],
    *,
    logits_every: int = 5,
    **options: Any,
) -> None:
    with late.tracker(bundle, **options) as tracker:
        found = answers(script, tracker, logits_every=logits_every)
        late.device.check()
        assert_equal(found, on_cpu(script, bundle, late, **options))
    counts = late.device.counts
    if late.name == "tensorrt" and logits_every > 5:
        assert counts.captures > 0  # reading logits keeps frames from repeating
    left = (counts.device_blocks, counts.host_blocks, counts.streams, counts.executables)
    assert left == (0, 0, 0, 0)
    assert counts.unpinned == 0


@pytest.mark.parametrize(
    "script",
    [
        scripts.one_object,
        scripts.two_objects,
        scripts.come_and_go,
        scripts.refined,
        scripts.started_over,
    ],
)
def test_results_equal_the_cpu(
    late: LateBackend, full_bundle: Bundle, script: Script, on_cpu: Callable[..., Any]
) -> None:
    repeats = script in (scripts.one_object, scripts.two_objects)
    compare(late, full_bundle, script, on_cpu, logits_every=59 if repeats else 5)


def test_trackers_that_share_a_backend_equal_separate_ones(
    late: LateBackend, full_bundle: Bundle, on_cpu: Callable[..., Any]
) -> None:
    parts = [scripts.two_objects, scripts.come_and_go, scripts.refined]
    bundle = late.bundle(full_bundle)
    with open_backend(bundle, late.name) as backend:
        sharing = [(script, VideoTracker(bundle, backend=backend)) for script in parts]
        found = answers_in_turn(sharing, logits_every=5)
        late.device.check()
    for script, ours in zip(parts, found, strict=True):
        assert_equal(ours, on_cpu(script, full_bundle, late))


@pytest.mark.parametrize("policy", ["motion", "distractor"])
@pytest.mark.parametrize("script", [scripts.leaves, scripts.started_over])
def test_memory_policies_equal_the_cpu(
    late: LateBackend,
    full_bundle: Bundle,
    policy: str,
    script: Script,
    on_cpu: Callable[..., Any],
) -> None:
    compare(late, full_bundle, script, on_cpu, memory_policy=policy)


def test_frozen_memories_equal_the_cpu(
    late: LateBackend, full_bundle: Bundle, on_cpu: Callable[..., Any]
) -> None:
    compare(late, full_bundle, scripts.leaves, on_cpu, remember_absent=False)


def test_chosen_tokens_equal_the_cpu(
    late: LateBackend, tokens_bundle: Bundle, on_cpu: Callable[..., Any]
) -> None:
    compare(late, tokens_bundle, scripts.started_over, on_cpu, logits=True)


@pytest.fixture(scope="module")
def half_bundle(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """float16 between the graphs as well."""
    target = tmp_path_factory.mktemp("bundles") / "half"
    options = ExportOptions(target="gpu", precision="fp16", memory_rounding="none")
    bundle = export_bundle(loaded(small_model), target, options)
    assert bundle.manifest.geometry.feature_dtype == "float16"
    return bundle


def test_float16_between_graphs_equals_the_cpu(
    late: LateBackend, half_bundle: Bundle, on_cpu: Callable[..., Any]
) -> None:
    compare(late, half_bundle, scripts.refined, on_cpu)


def steady_frames(
    late: LateBackend, bundle: Bundle, script: Script, frames: int = 7, **options: Any
) -> list[dict[str, int]]:
    """Count what each of a script's last frames takes."""
    counted = []
    with late.tracker(bundle, **options) as tracker:
        steps = script(tracker)
        while True:
            with late.device.counting() as counts:
                step = next(steps, None)
            if step is None:
                return counted[-frames:]
            counted.append(counts)


def test_a_frame_takes_two_uploads_one_download_and_one_wait(
    late: LateBackend, full_bundle: Bundle
) -> None:
    launches = 1 if late.name == "tensorrt" else 0
    expected = {
        "uploads": 2,
        "downloads": 1,
        "device_copies": 0,
        "waits": 1,
        "launches": launches,
        "enqueues": 0 if launches else ENGINES,
        "runs": ENGINES,
        "device_blocks": 0,
        "host_blocks": 0,
        "captures": 0,
    }
    for counts in steady_frames(late, full_bundle, scripts.one_object):
        assert {name: counts[name] for name in expected} == expected


def test_unequal_memories_cost_runs_of_memory_attention_alone(
    late: LateBackend, full_bundle: Bundle
) -> None:
    attention = 2 if late.name == "cuda" else 3  # objects with as many memories are one batch
    for counts in steady_frames(late, full_bundle, scripts.started_over, 3):
        assert counts["runs"] == ENGINES - 1 + attention
        assert (counts["downloads"], counts["waits"], counts["device_copies"]) == (1, 1, 0)


@pytest.mark.parametrize("late", ["tensorrt"], indirect=True)
def test_each_slot_of_the_ring_has_a_graph(late: LateBackend, full_bundle: Bundle) -> None:
    with late.tracker(full_bundle) as tracker:
        for _ in scripts.one_object(tracker):
            pass
        assert late.device.counts.executables == 7


@pytest.fixture
def compared(
    late: LateBackend, full_bundle: Bundle, on_cpu: Callable[..., Any]
) -> Callable[[], None]:
    """Raises AssertionError or BackendError if the device shows a fault.

    With two memories instead of seven, frames repeat sooner.
    """
    options = {"recent_memories": 1}
    expected = on_cpu(scripts.one_object, full_bundle, late, **options)  # before anything is broken

    def run() -> None:
        with late.tracker(full_bundle, **options) as tracker:
            found = answers(scripts.one_object, tracker, logits_every=1000)
        late.device.check()
        assert_equal(found, expected)

    return run


@pytest.mark.parametrize("late", ["tensorrt"], indirect=True)
class TestFaults:
    """What the device is there to find, each put into our code on purpose."""

    @pytest.fixture(autouse=True)
    def _forgiven(self, late: LateBackend):
        yield
        late.device.forgive()

    def test_without_a_fault(self, compared) -> None:
        compared()

    def test_memory_of_a_tensor_in_use_is_given_away(self, compared, monkeypatch) -> None:
        empty_block = DeviceMemory.empty_block

        def released(memory, tensors):
            found = empty_block(memory, tensors)
            for tensor in found.values():
                tensor.block = None
            return found

        monkeypatch.setattr(DeviceMemory, "empty_block", released)
        with pytest.raises((AssertionError, BackendError)):
            compared()

    def test_a_row_of_the_bank_is_reused_too_early(self, compared, monkeypatch) -> None:
        monkeypatch.setattr(MemoryRows, "_find", lambda rows, _: 0 if rows._used else None)
        with pytest.raises(AssertionError):
            compared()

    def test_staging_memory_is_reused_while_a_copy_reads_it(self, compared, monkeypatch) -> None:
        upload_block = DeviceMemory.upload_block

        def forgotten(memory, arrays):
            found = upload_block(memory, arrays)
            memory._uploads.clear()
            return found

        monkeypatch.setattr(DeviceMemory, "upload_block", forgotten)
        with pytest.raises(AssertionError):
            compared()

    def test_a_graph_is_launched_with_other_addresses(self, compared, monkeypatch) -> None:
        submit = Commands.submit

        def vague(commands, key, enqueue) -> None:
            submit(commands, key[0] if isinstance(key, tuple) else key.engine, enqueue)

        monkeypatch.setattr(Commands, "submit", vague)
        with pytest.raises((AssertionError, BackendError)):
            compared()

    def test_a_context_changes_after_its_capture(self, late, compared, monkeypatch) -> None:
        monkeypatch.setattr(
            contexts.Contexts, "_own_context", lambda self, *_, **_keywords: self._shared
        )
        with pytest.raises((AssertionError, BackendError)):
            compared()
        errors, _ = late.device.forgive()
        assert "outdated" in str(errors)

    def test_a_result_is_read_before_a_wait(self, compared, monkeypatch) -> None:
        monkeypatch.setattr(DeviceMemory, "synchronize", lambda memory: memory.commands.flush())
        with pytest.raises(AssertionError):
            compared()

    def test_graphs_stay_when_scratch_memory_moves(self, late, full_bundle, monkeypatch) -> None:
        monkeypatch.setattr(Commands, "drop_graphs", Commands.synchronize)
        with late.tracker(full_bundle) as tracker:
            for _ in scripts.one_object(tracker):
                pass
            scratch = tracker._model.backend._scratch
            scratch.reserve(scratch.size + 1)
            with pytest.raises(BackendError, match="LAUNCH_FAILED"):
                tracker.track(next(iter(scripts.frames(1))))

    def test_the_stream_goes_first(self, late, full_bundle, monkeypatch) -> None:
        monkeypatch.setattr(
            "sam2_edge.runtime.backends.tensorrt.TensorRt._close_engines", lambda _backend: None
        )
        tracker = late.tracker(full_bundle)
        tracker.track(next(iter(scripts.frames(1))), [scripts.DISC])
        tracker.close()
        del tracker
        assert "a stream is destroyed before the contexts that used it" in late.device.misuses
