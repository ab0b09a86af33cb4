"""Targets that read files: bundles, prompts, pictures, videos, masks and results."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sam2_edge.bundle import load_bundle
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.cli.inspect import inspect
from sam2_edge.compat.video.frames import open_frames
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.evaluation.mask_folders import folder_accuracy
from sam2_edge.evaluation.vos.datasets import open_dataset
from sam2_edge.evaluation.vos.results import EvalFolder, EvalSettings, open_folder
from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu
from sam2_edge.runtime.prompts import model_prompt
from sam2_edge.runtime.results import decode_rle
from sam2_edge.runtime.sources.image_file import read_image
from sam2_edge.runtime.sources.mask_file import read_id_mask, read_object_mask
from sam2_edge.runtime.sources.prompt_file import check_mask_ids, check_prompts, load_prompts
from sam2_edge.runtime.sources.video import open_source
from tests.fuzz import seeds
from tests.fuzz.target import Target

FRAMES = 3
PNG = b"\x89PNG\r\n\x1a\n"


def manifest(data: bytes, folder: Path) -> None:
    """A manifest beside graphs whose hashes are right."""
    bundle = _made(folder / "bundle", _write_graph)
    (bundle / MANIFEST_FILE).write_bytes(data)
    load_bundle(bundle)
    if zlib.crc32(data) % 16 == 0:  # tables take most of the time
        inspect.callback(bundle, as_json=False)  # type: ignore[misc]


def graph(data: bytes, folder: Path) -> None:
    """A graph whose hash in the manifest is right, down to the check of its tensors."""
    bundle = _made(folder / "bundle", _write_graph)
    (bundle / "graph.onnx").write_bytes(data)
    known, given = (hashlib.sha256(d).hexdigest().encode() for d in (seeds.graphs()[0], data))
    (bundle / MANIFEST_FILE).write_bytes(seeds.manifests()[0].replace(known, given))
    OnnxRuntimeCpu(load_bundle(bundle), threads=1)


def prompts(data: bytes, folder: Path) -> None:
    """A prompts file, checked against a source of three frames."""
    path = _made(folder / "prompts", _write_mask) / "prompts.json"
    path.write_bytes(data)
    by_frame = load_prompts(path)
    check_prompts(by_frame, 0, FRAMES)
    check_mask_ids(by_frame)
    for prompt in (prompt for group in by_frame.values() for prompt in group):
        model_prompt(prompt, (seeds.HEIGHT, seeds.WIDTH), 64)


def picture(data: bytes, folder: Path) -> None:
    """An image file, read as a frame, as a mask, and as a frame of the drop-in predictor."""
    path = _made(folder / "picture", Path.mkdir) / "0.png"
    path.write_bytes(_with_checksums(data))
    _each(
        lambda: read_image(path),
        lambda: read_object_mask(path, 1),
        lambda: read_id_mask(path),
        lambda: open_frames(path.parent, 64).image(0),
    )


def video(data: bytes, folder: Path) -> None:
    """A video file, read once forward as a source, and with jumps by the drop-in predictor."""
    path = _made(folder / "video", Path.mkdir) / "clip.mkv"
    path.write_bytes(data)
    for frame in open_source(path):
        assert frame.picture.dtype == np.uint8
    frames = open_frames(path, 64)
    for index in (len(frames) - 1, 0, len(frames) // 2):
        frames.image(index)


def rle(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """A mask in a saved result."""
    value = _json(data)
    if isinstance(value, dict):
        mask = decode_rle(value)
        assert list(mask.shape) == value["size"]


def masks(data: bytes, folder: Path) -> None:
    """A predicted mask, scored against true ones."""
    truth = _made(folder / "truth", _write_masks)
    ours = _made(folder / "ours", _write_masks)
    (ours / "1.png").write_bytes(_with_checksums(data))
    folder_accuracy(ours, truth)


def dataset(data: bytes, folder: Path) -> None:
    """The meta file of a data set."""
    root = _made(folder / "data", _write_dataset)
    (root / "meta.json").write_bytes(data)
    for clip in open_dataset(root).videos:
        clip.read_masks(0, (seeds.HEIGHT, seeds.WIDTH))


def evaluation(data: bytes, folder: Path) -> None:
    """Saved settings and records of an evaluation, which is resumed."""
    value = _json(data)
    if not isinstance(value, dict):
        return
    path = _made(folder / "evaluation", _write_evaluation)
    (path / "settings.json").write_text(json.dumps(value.get("settings")))
    (path / "records" / "clip.json").write_text(json.dumps(value.get("record")))
    settings = EvalSettings(**json.loads(seeds.evaluations()[0])["settings"])
    _each(lambda: open_folder(path, settings))
    record = EvalFolder(path).record("clip")
    if record is not None:
        EvalFolder(path).finish(settings, [record])


def checkpoint(data: bytes, folder: Path) -> None:
    """An original checkpoint: an archive, or the pickle in a sound one."""
    from sam2_edge.models.checkpoints import load_original

    path = _made(folder / "checkpoint", Path.mkdir) / "model.pt"
    path.write_bytes(data)
    if not data.startswith(b"PK"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (("data.pkl", data), ("data/0", bytes(64)), ("version", b"3\n")):
                archive.writestr(f"archive/{name}", content)
    load_original(path, image_size=64)


def weights(data: bytes, folder: Path) -> None:
    """A folder in Hugging Face format: its configuration, the header of its weights, its index."""
    from sam2_edge.models.checkpoints import load_folder

    value = _json(data)
    if not isinstance(value, dict):
        return
    path = _made(folder / "weights", Path.mkdir)
    (path / "config.json").write_text(json.dumps(value.get("config")))
    header = json.dumps(value.get("header")).encode()
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    single.unlink(missing_ok=True)
    index.write_text(json.dumps(value.get("index")))
    file = path / "shard.safetensors" if "index" in value else single
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    load_folder(path)


FILES = {
    "manifest": Target(manifest, seeds.manifests, is_json=True),
    "graph": Target(graph, seeds.graphs),
    "prompts": Target(prompts, seeds.prompts_files, is_json=True),
    "picture": Target(picture, seeds.pictures),
    "video": Target(video, seeds.videos),
    "rle": Target(rle, seeds.rles, is_json=True),
    "masks": Target(masks, seeds.index_masks),
    "dataset": Target(dataset, seeds.dataset_metas, is_json=True),
    "evaluation": Target(evaluation, seeds.evaluations, is_json=True),
    "checkpoint": Target(checkpoint, seeds.checkpoints),
    "weights": Target(weights, seeds.weights, is_json=True, most=5_000),
}


def _made(path: Path, make: Callable[[Path], Any]) -> Path:
    """Make a folder unless an earlier input has."""
    if not path.exists():
        make(path)
    return path


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _each(*calls: Callable[[], Any]) -> None:
    """Make several calls, of which each may refuse the input."""
    for call in calls:
        with suppress(Sam2EdgeError):
            call()


def _with_checksums(data: bytes) -> bytes:
    """Correct the checksums of a PNG, without which a reader looks at nothing else."""
    if not data.startswith(PNG):
        return data
    parts, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        end = at + 8 + size
        if end + 4 > len(data):
            break
        parts += [data[at:end], struct.pack(">I", zlib.crc32(data[at + 4 : end]))]
        at = end + 4
    return b"".join([*parts, data[at:]])


def _write_graph(folder: Path) -> None:
    folder.mkdir()
    (folder / "graph.onnx").write_bytes(seeds.graphs()[0])
    (folder / "weights.bin").write_bytes(seeds.WEIGHTS)


def _write_mask(folder: Path) -> None:
    folder.mkdir()
    mask = np.zeros((seeds.HEIGHT, seeds.WIDTH), np.uint8)
    mask[5:9, 7:20] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)


def _write_masks(folder: Path) -> None:
    folder.mkdir()
    for index in range(FRAMES):
        (folder / f"{index}.png").write_bytes(seeds.index_masks()[0])


def _write_dataset(root: Path) -> None:
    (root / "Annotations").mkdir(parents=True)
    _write_masks(root / "Annotations" / "clip")
    shutil.copytree(root / "Annotations", root / "JPEGImages")


def _write_evaluation(path: Path) -> None:
    for name in ("records", "Annotations/clip"):
        (path / name).mkdir(parents=True)
