"""Valid inputs of the targets, from which the fuzzer starts."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from functools import cache
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.runtime.results import encode_rle

HEIGHT, WIDTH = 24, 32
"""Size of every picture, pixels."""


def documents(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


WEIGHTS = b"0123456789abcdef"
"""Weights of `graphs` in a file of their own."""


@cache
def manifests() -> list[bytes]:
    """The bundled model's, with a small graph instead of its own."""
    content = json.loads((BUNDLED["nano"] / MANIFEST_FILE).read_bytes())
    data = [{"file": "weights.bin", "sha256": hashlib.sha256(WEIGHTS).hexdigest()}]
    file = {"file": "graph.onnx", "sha256": hashlib.sha256(graphs()[0]).hexdigest(), "data": data}
    content["graphs"] = {name: {**entry, **file} for name, entry in content["graphs"].items()}
    return documents(content)


@cache
def graphs() -> list[bytes]:
    """A small graph with weights inside and beside it."""
    import onnx

    inside = onnx.numpy_helper.from_array(np.ones(4, np.float32), "inside")
    beside = onnx.TensorProto(name="beside", data_type=1, dims=[4], data_location=1)
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "16")):
        beside.external_data.add(key=key, value=value)
    value = onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, ["B", 4])
    total = onnx.helper.make_tensor_value_info("total", onnx.TensorProto.FLOAT, ["B", 4])
    nodes = [
        onnx.helper.make_node("Add", ["mask", "inside"], ["more"]),
        onnx.helper.make_node("Add", ["more", "beside"], ["total"]),
    ]
    graph = onnx.helper.make_graph(nodes, "small", [value], [total], [inside, beside])
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    return [model.SerializeToString()]


def prompts_files() -> list[bytes]:
    point = {"frame": 0, "object": 1, "points": [[5, 6], [7.5, 8]], "labels": [1, 0]}
    box = {"frame": 1, "object": 2, "box": [1, 2, 20, 20]}
    mask = {"frame": 2, "object": 3, "mask": "mask.png"}
    return documents([point], [box, mask], [point, {**point, "object": 2}, {**box, "frame": 0}])


def rles() -> list[bytes]:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[5:9, 7:20] = True
    record = {"frame": 0, "objects": [{"id": 1, "present": True, "rle": encode_rle(mask)}]}
    return documents(encode_rle(mask), encode_rle(~mask), record["objects"][0]["rle"])


def dataset_metas() -> list[bytes]:
    lvos = {"frame_range": {"start": 1, "end": 3, "frame_nums": 3}}
    videos: list[dict[str, Any]] = [{"1": lvos}, {"1": {"frames": ["0", "1"]}}]
    return documents(*({"videos": {"clip": {"objects": objects}}} for objects in videos))


def evaluations() -> list[bytes]:
    settings = {
        "sam2_edge_version": "0.1.0",
        "dataset": "data",
        "layout": "mose",
        "bundle": "nano",
        "bundle_sha256": "0" * 64,
        "prompt": "mask",
        "backend": "cpu",
    }
    statistics = {"mean": 0.5, "recall": 0.5, "decay": 0.1}
    score = {"frames": 3, "j": statistics, "f": statistics}
    entry = {"object": "1", "prompt": "mask", "prompt_frame": "0", "score": score}
    record = {"video": "clip", "frames": 3, "objects": [entry, {**entry, "score": None}]}
    return documents({"settings": settings, "record": record})


def commands() -> list[bytes]:
    prompt = {"id": 1, "type": "prompt", "object": 1, "points": [[5, 6]], "labels": [1]}
    return documents(
        prompt,
        {"id": 2, "type": "prompt", "object": 2, "box": [1, 2, 20, 20]},
        {"id": 3, "type": "remove", "object": 1},
        {"id": 4, "type": "name", "object": 1, "name": "cup"},
        {"id": 5, "type": "click", "object": 1, "x": 5, "y": 6, "foreground": False},
        *({"id": 6, "type": kind} for kind in ("reset", "undo", "pause", "replay")),
    )


def requests(token: str) -> list[bytes]:
    """Requests to the application, as JSON."""
    host = ["host", "127.0.0.1:8080"]
    cookie, bearer = ["cookie", f"sam2_edge_token={token}"], ["authorization", f"Bearer {token}"]
    origin = ["origin", "http://127.0.0.1:8080"]
    pages = [
        {"method": "GET", "path": path, "query": query, "headers": [host, header]}
        for path in ("/", "/masks.zip", "/metrics", "/healthz", "/none")
        for query, header in ((f"token={token}", ["accept", "*/*"]), ("", cookie), ("", bearer))
    ]
    texts = [data.decode() for data in commands()]
    socket = {"path": "/ws", "query": "", "headers": [host, cookie, origin], "messages": texts}
    return documents(*pages, socket, {**socket, "messages": texts[:1]})


def raw_requests(token: str) -> list[bytes]:
    """Requests to the server, as sent."""
    head = f"Host: 127.0.0.1\r\nCookie: sam2_edge_token={token}\r\n"
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    text = b'{"id":1,"type":"pause"}'
    frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text  # masked with zeros
    ping, close = bytes([0x89, 0x80, 0, 0, 0, 0]), bytes([0x88, 0x80, 0, 0, 0, 0])
    page = f"GET /healthz HTTP/1.1\r\n{head}\r\n".encode()
    chunked = f"POST / HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    socket = f"GET /ws HTTP/1.1\r\n{head}{upgrade}".encode()
    return [page, page + page, chunked.encode(), socket + frame + close, socket + ping + frame]


def arguments() -> list[bytes]:
    prompt = ["--object", "1", "--point", "5,6", "--point", "7,8,0", "--box", "1,2,9,9"]
    tracking = ["--bundle", "none", "--backend", "cpu", "--threads", "1", "--recent-memories", "2"]
    loop = ["--latest-frame", "--codec", "vp9", "--fps", "15", "--udp", "127.0.0.1:9"]
    loop += ["--rotate-mb", "1"]
    loop += ["--rotate-minutes", "1", "--keep-gb", "1", "--report-s", "1", "--log-json"]
    return documents(
        ["track", "frames", *prompt, *tracking, "--frames", "0:2", "--memory-policy", "motion"],
        ["track", "frames", "--prompts", "prompts.json", *tracking],
        ["segment", "frames/0.png", *prompt, "--mask", "mask.png", "--bundle", "none"],
        ["run", "frames", *prompt, *tracking, *loop],
        ["serve", "synth:3", *loop, "--bundle", "none", "--host", "127.0.0.1", "--port", "8080"],
        [
            "serve",
            "0",
            "--bundle",
            "none",
            "--token",
            "0123456789abcdef",
            "--allow-origin",
            "https://a.example",
        ],
        ["export", "nano", "--output", "out", "--precision", "int8", "--calibrate", "frames"],
        ["export", "tiny", "--output", "out", "--image-size", "512", "--int8-budget", "0.01"],
        ["build-engines", "none", "--output", "out", "--target", "tensorrt", "--max-objects", "4"],
        ["verify", "none", "--source", "frames", "--swap", "image_encoder", *prompt[:4]],
        ["bench", "none", "--source", "frames", "--frames", "40", "--objects", "1"],
        ["eval", "frames", "none", "--output", "out", "--layout", "mose", "--videos", "a"],
        ["synth", "out", "--seed", "1", "--clips", "1", "--frames", "3", "--size", "64"],
        ["score", "frames", "frames"],
        ["inspect", "none", "--json"],
        ["doctor"],
    )


def pictures() -> list[bytes]:
    """A picture in every format and kind of pixel that may come."""
    color = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    suffixes = (".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm")
    written = [cv2.imencode(suffix, color)[1].tobytes() for suffix in suffixes]
    deep = cv2.imencode(".png", color.astype(np.uint16) * 257)[1].tobytes()
    image = Image.fromarray(color)
    rotated = image.getexif()
    rotated[0x0112] = 6
    return [
        *written,
        deep,
        *(_saved(image.convert(mode), "PNG") for mode in ("1", "L", "P", "RGBA", "LA")),
        _saved(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        _saved(image, "JPEG", exif=rotated, progressive=True),
        _saved(image.convert("CMYK"), "JPEG"),
        _saved(image, "TIFF", compression="tiff_lzw"),
        _saved(image.convert("F"), "TIFF"),
        _saved(image.convert("L"), "PPM"),
        *index_masks(),
    ]


def index_masks() -> list[bytes]:
    """Masks of two objects, with a palette, in gray, and transparent outside."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 6:15], mask[14:20, 18:30] = 1, 2
    indexed = Image.fromarray(mask)
    indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    cut_out = Image.fromarray(np.dstack([mask, mask, mask, 255 * (mask > 0)]).astype(np.uint8))
    return [_saved(image, "PNG") for image in (indexed, Image.fromarray(mask), cut_out)]


def videos() -> list[bytes]:
    """Five frames in every container."""
    kinds = {
        "mp4": ("mpeg4", "yuv420p"),
        "matroska": ("mjpeg", "yuvj420p"),
        "avi": ("mpeg4", "yuv420p"),
        "webm": ("libvpx", "yuv420p"),
        "mpegts": ("mpeg2video", "yuv420p"),
        "mov": ("libx264", "yuv420p"),
        "gif": ("gif", "rgb8"),
    }
    return [_video(container, *codec) for container, codec in kinds.items()]


def _video(container: str, codec: str, pixels: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container, options={"fflags": "+bitexact"}) as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for index in range(5):
            picture = np.full((HEIGHT, WIDTH, 3), 40 * index, np.uint8)
            picture[index : index + 8, 4:20] = 255
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        output.mux(stream.encode())
    return file.getvalue()


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def checkpoints() -> list[bytes]:
    import torch

    name = "image_encoder.trunk.patch_embed.proj.weight"
    states: list[Any] = [{"model": {name: torch.ones(96, 3)}}, {"a": torch.zeros(2)}, [1]]
    files = [io.BytesIO() for _ in states]
    for state, file in zip(states, files, strict=True):
        torch.save(state, file)
    archives = [zipfile.ZipFile(file) for file in files]
    pickles = [archive.read(archive.namelist()[0]) for archive in archives]
    return [*(file.getvalue() for file in files), *pickles]


def weights() -> list[bytes]:
    config = json.loads((BUNDLED["nano"] / "config.json").read_bytes())
    header = {"no_memory_embedding": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    index = {"weight_map": {"no_memory_embedding": "shard.safetensors"}}
    whole = {"config": config, "header": header}
    return documents(whole, {**whole, "index": index})
