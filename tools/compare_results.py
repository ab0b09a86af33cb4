"""Checks that two versions of sam2_edge give the same results, bit by bit.

    python tools/compare_results.py record OLD/.venv/bin results/old
    python tools/compare_results.py record NEW/.venv/bin results/new
    python tools/compare_results.py compare results/old results/new

`record` exports graphs and tracks, segments and evaluates synthetic clips with one installation.
`compare` lists the files that differ: masks, run lengths, scores and graphs must be equal byte by
byte, and the exit code is 1 if any is not. Times and manifests are left out, since they differ by
nature. Run it before and after a change that must not change results, with the same versions of all
dependencies: a graph names the PyTorch that exported it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SMALL = ["--random-init", "1", "--image-size", "256"]

TRACKING = [
    "sam2-edge synth data --clips 2 --seed 55 --frames 40",
    *(
        f"sam2-edge track data/JPEGImages/0000{clip} --bundle nano --memory-policy {policy} "
        f"--prompts data/prompts/0000{clip}.json --masks {policy}{clip} "
        f"--jsonl {policy}{clip}.jsonl"
        for clip in (0, 1)
        for policy in ("original", "motion", "distractor")
    ),
    "sam2-edge track data/JPEGImages/00000 --bundle nano --box 60,60,190,190 --recent-memories 3 "
    "--jsonl recent.jsonl",
    "sam2-edge segment data/JPEGImages/00000/00000.jpg --bundle nano --point 120,120 --multimask "
    "--masks segmented --json segmented.json",
    "sam2-edge eval data nano --prompt mask --output scores",
    "python compat.py",
]

EXPORTS = [
    "sam2-edge export nano --output bundles/nano",
    "sam2-edge export nano --memory-rounding none --output bundles/full",
    "sam2-edge export nano --memory-tokens 64 --output bundles/tokens",
    "sam2-edge track data/JPEGImages/00000 --bundle bundles/tokens --prompts "
    "data/prompts/00000.json --jsonl tokens.jsonl",
    "sam2-edge export nano --precision mixed --output bundles/mixed",
    "sam2-edge export nano --precision fp16 --output bundles/fp16",
    "sam2-edge export nano --precision int8 --calibrate data/JPEGImages/00000 "
    "--calibration-frames 16 --output bundles/int8",
    f"sam2-edge export sam2.1-hiera-tiny {' '.join(SMALL)} --output bundles/tiny",
    f"sam2-edge export sam2-hiera-small {' '.join(SMALL)} --output bundles/small",
]

COMPAT = """
import glob, hashlib, json
import cv2, numpy as np
from sam2_edge.compat import (
    SAM2AutomaticMaskGenerator, SAM2ImagePredictor, build_sam2, build_sam2_video_predictor,
)
digest = hashlib.sha256()
predictor = build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", "nano")
state = predictor.init_state("data/JPEGImages/00000")
predictor.add_new_points_or_box(state, 0, 1, points=[[120, 120]], labels=[1])
predictor.add_new_points_or_box(state, 5, 2, box=[60, 60, 190, 190])
for reverse in (False, True):
    for frame, ids, logits in predictor.propagate_in_video(state, 8, 20, reverse):
        digest.update(np.ascontiguousarray(np.asarray(logits)).tobytes())
image = cv2.imread(glob.glob("data/JPEGImages/00000/*.jpg")[0])[..., ::-1]
still = SAM2ImagePredictor(build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", "nano"))
still.set_image(image)
for array in still.predict([[120, 120]], [1]):
    digest.update(np.ascontiguousarray(array).tobytes())
options = {"points_per_side": 8, "output_mode": "uncompressed_rle"}
records = SAM2AutomaticMaskGenerator(still.model, **options).generate(image)
digest.update(json.dumps(records, default=str, sort_keys=True).encode())
open("compat.sha256", "w").write(digest.hexdigest())
"""


def main() -> None:
    """Record the results of one installation, or compare two recordings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    recording = actions.add_parser("record")
    recording.add_argument("bin", type=Path, help="folder of the installation's executables")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--quick", action="store_true", help="no exports")
    comparing = actions.add_parser("compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    arguments = parser.parse_args()
    if arguments.action == "record":
        commands = TRACKING if arguments.quick else [*TRACKING, *EXPORTS]
        record(arguments.bin.absolute(), arguments.folder, commands)
    else:
        sys.exit(compare(arguments.old, arguments.new))


def record(executables: Path, folder: Path, commands: list[str]) -> None:
    """Run the commands of one installation in a new folder."""
    folder.mkdir(parents=True)
    (folder / "compat.py").write_text(COMPAT)
    for command in commands:
        program, *options = command.split()
        print(command, flush=True)
        subprocess.run(
            [executables / program, *options],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # the order of an exported graph's nodes
        )


def compare(old: Path, new: Path) -> int:
    """Print which files differ and return an exit code."""
    before, after = dict(fingerprints(old)), dict(fingerprints(new))
    names = sorted(before.keys() | after.keys())
    differing = [name for name in names if before.get(name) != after.get(name)]
    print(f"{len(names) - len(differing)} of {len(names)} files are equal")
    for name in differing:
        print(f"differs: {name}")
    return 1 if differing else 0


def fingerprints(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and sha256 of everything that must be equal."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in ("manifest.json", "settings.json", "compat.py"):
            continue
        content = path.read_bytes()
        if path.suffix in (".jsonl", ".json"):
            content = "\n".join(map(without_times, content.decode().splitlines())).encode()
        yield str(path.relative_to(folder)), hashlib.sha256(content).hexdigest()


def without_times(line: str) -> str:
    """Return a line of JSON without what differs by nature."""
    try:
        record = json.loads(line)
    except ValueError:
        # Of an indented file: times, paths, and the hash of a manifest.
        varies = ("milliseconds", "seconds", '"dataset"', '"bundle_sha256"', '"sam2_edge_version"')
        return "" if any(key in line for key in varies) else line
    if isinstance(record, dict):
        record.pop("milliseconds", None)
    return json.dumps(record, sort_keys=True)


if __name__ == "__main__":
    main()
