"""What the GPU backends share: outputs, and the order in which everything is freed."""

from __future__ import annotations

import gc
from typing import Any, cast

import numpy as np
import pytest

from sam2_edge import BackendError
from sam2_edge.bundle.contract import Geometry, Graph
from sam2_edge.runtime.backends.cuda.backend import DeviceBackend
from sam2_edge.runtime.backends.cuda.memory import DeviceTensor
from tests.helpers.late_device import LateDevice

GEOMETRY = Geometry(image_size=64, hidden=8, memory_channels=4)


class Recorded(DeviceBackend):
    """Notes whether the stream still exists when the engines go."""

    def __init__(self, device: LateDevice) -> None:
        self.device, self.streams = device, list[bool]()
        super().__init__(GEOMETRY, whole_frames=True)

    def _close_engines(self) -> None:
        self.streams.append(self.device.stream_exists(self.stream))


def test_the_stream_outlives_the_engines(late_device: LateDevice) -> None:
    with Recorded(late_device) as backend:
        backend.upload(np.ones(3, np.float32))
        backend.commands.flush()
    backend.close()
    assert backend.streams == [True]
    assert late_device.counts.streams == late_device.counts.device_blocks == 0
    with pytest.raises(BackendError, match="this backend is closed; open another one"):
        backend.empty((1,))


def test_a_backend_that_is_dropped_is_closed_at_once(late_device: LateDevice) -> None:
    backend = Recorded(late_device)
    streams, tensor = backend.streams, backend.empty((4,))
    gc.disable()  # no cycle may keep it
    try:
        del backend
        assert streams == [True]
        assert late_device.counts.streams == late_device.counts.device_blocks == 0
    finally:
        gc.enable()
    assert tensor.shape == (4,)


def test_the_memory_is_freed_even_if_the_engines_fail_to_close(late_device: LateDevice) -> None:
    class Failing(DeviceBackend):
        def _close_engines(self) -> None:
            raise BackendError("the kernels cannot be saved")

    backend = Failing(GEOMETRY)
    backend.upload(np.ones(3, np.float32))
    with pytest.raises(BackendError, match="cannot be saved"):
        backend.close()
    assert late_device.counts.streams == late_device.counts.device_blocks == 0


def test_without_a_gpu_there_is_nothing_to_close(late_device: LateDevice) -> None:
    late_device.settings.devices = 0
    with pytest.raises(BackendError, match="no NVIDIA GPU is visible"):
        Recorded(late_device)
    gc.collect()
    assert late_device.counts.streams == 0


def test_it_moves_tensors_and_blocks(late_device: LateDevice) -> None:
    backend = DeviceBackend(GEOMETRY)
    assert backend.on_device
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(3, 2), "b": np.ones(4, np.float16)}
    uploaded = backend.upload_block(arrays)
    block = backend.empty_block({"a": ((3, 2), "int32"), "c": ((2,), "float32")})
    backend.copy(uploaded["a"], block["a"])
    backend.copy(backend.upload(np.float32([5, 6])), block["c"])
    got = backend.download_block(block)
    np.testing.assert_array_equal(got["a"], arrays["a"])
    np.testing.assert_array_equal(got["c"], [5, 6])
    assert late_device.counts.downloads == 1
    np.testing.assert_array_equal(backend.download(uploaded["b"]), arrays["b"])
    assert backend.empty((2,), "uint8").shape == (2,)
    del uploaded, block
    backend.trim()
    assert late_device.counts.device_blocks == 0


@pytest.mark.usefixtures("late_device")
def test_outputs_may_be_given() -> None:
    backend = DeviceBackend(GEOMETRY)
    spec = backend._specs[Graph.MEMORY_ENCODER]
    (memory,) = spec.outputs
    rows = backend.empty((5, *memory.shape(B=5)[1:]), memory.dtype)[2:4]
    outputs: dict[str, Any] = backend._outputs(spec, {"B": 2}, {memory.name: rows})
    assert outputs[memory.name] is rows
    made = backend._outputs(spec, {"B": 3})[memory.name]
    assert made.shape == memory.shape(B=3)
    with pytest.raises(BackendError, match=rf"memory_encoder gives {memory.name} of shape \(1, "):
        backend._outputs(spec, {"B": 1}, {memory.name: rows})
    wrong = cast("DeviceTensor", backend.empty(memory.shape(B=2), "uint8"))
    with pytest.raises(BackendError, match=f"dtype {memory.dtype}, not .* and uint8"):
        backend._outputs(spec, {"B": 2}, {memory.name: wrong})
    with pytest.raises(BackendError, match=rf"gives \['{memory.name}'\], but not masks"):
        backend._outputs(spec, {"B": 2}, {"masks": rows})
