"""Triton's part, in this process: what its Python backend and its gRPC client do around a model.

The names and rules are those of `triton_python_backend_utils` and `tritonclient.grpc` as far as the
model and the client use them; requests are checked against config.pbtxt as the server does.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

_DTYPES = {
    "TYPE_UINT8": "uint8",
    "TYPE_STRING": "object",
    "TYPE_INT32": "int32",
    "TYPE_FP32": "float32",
}
_WORD = re.compile(r'\s*(?:#[^\n]*\n\s*)*("[^"]*"|[\w.+-]+|[{}\[\]:,])')


class TritonError(Exception):
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE = range(5)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self._code = code

    def message(self) -> str:
        return str(self)

    def code(self) -> int:
        return self._code


class Tensor:
    def __init__(self, name: str, array: NDArray[Any]) -> None:
        assert isinstance(array, np.ndarray)
        if array.dtype == np.object_:
            assert all(isinstance(item, bytes) for item in array.ravel())
        self._name, self._array = name, np.ascontiguousarray(array)

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


class InferenceResponse:
    def __init__(self, output_tensors: Sequence[Tensor], error: TritonError | None = None) -> None:
        self._tensors, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error


class InferenceRequest:
    def __init__(
        self, sequence_id: int | str, tensors: Sequence[Tensor], requested: Sequence[str]
    ) -> None:
        self._id, self._tensors, self._requested = sequence_id, tensors, requested

    def correlation_id(self) -> int | str:
        return self._id

    def inputs(self) -> list[Tensor]:
        return list(self._tensors)

    def requested_output_names(self) -> list[str]:
        return list(self._requested)


class Server:
    """One instance of a model of a repository, under the sequence batcher."""

    def __init__(self, folder: Path) -> None:
        utilities = ModuleType("triton_python_backend_utils")
        for each in (TritonError, Tensor, InferenceResponse, InferenceRequest):
            setattr(utilities, each.__name__, each)
        self.config = parse_config((folder / "config.pbtxt").read_text())
        spec = importlib.util.spec_from_file_location("model", folder / "1/model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.model = module.TritonPythonModel()
        arguments = {
            "model_config": json.dumps(self.config),
            "model_instance_kind": self.config["instance_group"][0]["kind"].removeprefix("KIND_"),
            "model_instance_device_id": "0",
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, utilities.__name__, utilities)
            self.model.initialize(arguments)
        self.open: set[int | str] = set()
        self.silent = False

    def forget(self) -> None:
        """End all sequences."""
        self.model._sequences.close()
        self.open.clear()
        self.silent = False

    def infer(
        self,
        sequence_id: int | str,
        *,
        start: bool = False,
        end: bool = False,
        outputs: Sequence[str] | None = None,
        **inputs: NDArray[Any] | bytes,
    ) -> dict[str, NDArray[Any]]:
        """Send a request; raises TritonError as a client would get it."""
        (answer,) = self.infer_all([self.request(sequence_id, start, end, outputs, inputs)])
        if isinstance(answer, TritonError):
            raise answer
        return answer

    def infer_all(
        self, requests: Sequence[InferenceRequest]
    ) -> list[dict[str, NDArray[Any]] | TritonError]:
        """Pass a batch of requests to the model."""
        responses = self.model.execute(list(requests))
        assert len(responses) == len(requests)
        return [response.error() or self._outputs(response) for response in responses]

    def request(
        self,
        sequence_id: int | str,
        start: bool,
        end: bool,
        outputs: Sequence[str] | None,
        inputs: Mapping[str, NDArray[Any] | bytes],
    ) -> InferenceRequest:
        """What the sequence batcher makes of a client's request."""
        if not start and sequence_id not in self.open:
            raise TritonError(f"sequence {sequence_id} must specify the START flag")
        (self.open.discard if end else self.open.add)(sequence_id)
        arrays = {
            name: np.array([value], np.object_) if isinstance(value, bytes) else value
            for name, value in inputs.items()
        }
        self._check(self.config["input"], arrays)
        controls = {"START": start, "END": end, "READY": True}
        names = [each["name"] for each in self.config["sequence_batching"]["control_input"]]
        assert sorted(names) == sorted(controls)
        tensors = [Tensor(name, np.array([controls[name]], np.int32)) for name in names]
        tensors += [Tensor(name, array) for name, array in arrays.items()]
        known = [each["name"] for each in self.config["output"]]
        return InferenceRequest(sequence_id, tensors, known if outputs is None else outputs)

    def _outputs(self, response: InferenceResponse) -> dict[str, NDArray[Any]]:
        arrays = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        self._check(self.config["output"], arrays)
        return arrays

    @staticmethod
    def _check(specs: Sequence[Mapping[str, Any]], arrays: Mapping[str, NDArray[Any]]) -> None:
        by_name = {spec["name"]: spec for spec in specs}
        for name, array in arrays.items():
            spec = by_name[name]
            expected = spec["dims"]
            pairs = zip(expected, array.shape, strict=False)
            fits = len(expected) == array.ndim and all(a in (-1, b) for a, b in pairs)
            if not fits or array.dtype != _DTYPES[spec["data_type"]]:
                raise TritonError(f"unexpected shape for input {name!r}: {array.shape}")


def parse_config(text: str) -> dict[str, Any]:
    """Read what config.pbtxt uses of protobuf's text format, as Triton passes it to models."""
    words = _WORD.findall(text)
    assert "".join(words) == re.sub(r'("[^"]*")|#[^\n]*|\s', r"\1", text)
    parsed = _parse_fields(iter([*words, "}"]))
    parsed["parameters"] = {each["key"]: each["value"] for each in parsed["parameters"]}
    return parsed


def _parse_fields(words: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in words:
        if name == "}":
            break
        if name == ",":
            continue
        word = next(words)
        if word == ":":
            word = next(words)
        if word == "[":
            fields.setdefault(name, []).extend(_parse_list(words))
        elif word != "{":
            fields[name] = _value(word)
        elif name == "parameters":
            fields.setdefault(name, []).append(_parse_fields(words))
        else:
            fields[name] = _parse_fields(words)
    return fields


def _parse_list(words: Any) -> list[Any]:
    items: list[Any] = []
    for word in words:
        if word == "]":
            break
        if word != ",":
            items.append(_parse_fields(words) if word == "{" else _value(word))
    return items


def _value(word: str) -> int | str:
    return int(word) if re.fullmatch(r"-?\d+", word) else word.strip('"')


class InferenceServerException(Exception):  # noqa: N818 - tritonclient's own name
    pass


class InferInput:
    def __init__(self, name: str, shape: list[int], datatype: str) -> None:
        self.name, self._shape, self._datatype = name, shape, datatype

    def set_data_from_numpy(self, array: NDArray[Any]) -> None:
        dtypes = {"UINT8": "uint8", "INT32": "int32", "BYTES": "object"}
        assert (list(array.shape), array.dtype) == (self._shape, dtypes[self._datatype])
        self.array = array.copy()


class InferRequestedOutput:
    def __init__(self, name: str) -> None:
        self.name = name


class InferResult:
    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def as_numpy(self, name: str) -> NDArray[Any] | None:
        return self._arrays.get(name)


Callback = Callable[[InferResult | None, InferenceServerException | None], None]


class InferenceServerClient:
    servers: Mapping[str, Server]

    def __init__(self, url: str) -> None:
        self._url = url
        self._callback: Callback | None = None

    def is_model_ready(self, model: str, *, client_timeout: float) -> bool:
        assert client_timeout > 0
        if self._url not in self.servers:
            raise InferenceServerException("failed to connect to all addresses")
        return bool(self.servers[self._url].config["name"] == model)

    def start_stream(self, callback: Callback) -> None:
        self._callback = callback

    def async_stream_infer(
        self,
        model: str,
        inputs: Sequence[InferInput],
        *,
        outputs: Sequence[InferRequestedOutput],
        sequence_id: int | str,
        sequence_start: bool,
        sequence_end: bool,
    ) -> None:
        assert self._callback is not None
        server = self.servers[self._url]
        assert server.config["name"] == model
        try:
            arrays = server.infer(
                sequence_id,
                start=sequence_start,
                end=sequence_end,
                outputs=[output.name for output in outputs],
                **{each.name: each.array for each in inputs},
            )
        except TritonError as error:
            self._callback(None, InferenceServerException(str(error)))
        else:
            if not server.silent:
                self._callback(InferResult(arrays), None)

    def stop_stream(self, *, cancel_requests: bool) -> None:
        assert cancel_requests
        self._callback = None

    def close(self) -> None:
        assert self._callback is None


def install_client(monkeypatch: pytest.MonkeyPatch, servers: Mapping[str, Server]) -> None:
    """Install a `tritonclient.grpc` that reaches servers by their URLs."""

    monkeypatch.setattr(InferenceServerClient, "servers", servers, raising=False)
    package, grpc = ModuleType("tritonclient"), ModuleType("tritonclient.grpc")
    package.grpc = grpc  # type: ignore[attr-defined]
    known = (InferenceServerClient, InferInput, InferRequestedOutput, InferenceServerException)
    for each in known:
        setattr(grpc, each.__name__, each)
    monkeypatch.setitem(sys.modules, "tritonclient", package)
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", grpc)
