"""Checks that two installations of sam2_edge give the same results, bit by bit.

    python tools/compare_results.py OLD/.venv/bin NEW/.venv/bin [--quick]

Each installation exports graphs and tracks, segments and evaluates synthetic clips with the bundled
model, in a folder of its own. Masks, run lengths, scores and graphs must then be equal, byte by
byte. Times and manifests are left out: they differ by nature. Run it before and after a change that
should not change results. Exit code 1 lists what differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

SMALL = ["--random-init", "1", "--image-size", "256"]

TRACKING = [
    "sam2-edge synth data --clips 2 --seed 55 --frames 40",
    *(
        f"sam2-edge track data/JPEGImages/0000{clip} --bundle nano --memory-policy {policy} "
        f"--prompts data/prompts/0000{clip}.json --masks {policy}{clip} --jsonl {policy}{clip}.jsonl"
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
generator = SAM2AutomaticMaskGenerator(still.model, points_per_side=8, output_mode="uncompressed_rle")
records = generator.generate(image)
digest.update(json.dumps(records, default=str, sort_keys=True).encode())
open("compat.sha256", "w").write(digest.hexdigest())
"""


def main() -> None:
    """Compare two installations, named by the folders of their executables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--quick", action="store_true", help="masks alone, no exports")
    arguments = parser.parse_args()
    commands = TRACKING if arguments.quick else [*TRACKING, *EXPORTS]
    with TemporaryDirectory() as folder:
        found = []
        for side, bin_folder in (("old", arguments.old), ("new", arguments.new)):
            work = Path(folder) / side
            work.mkdir()
            (work / "compat.py").write_text(COMPAT)
            for command in commands:
                program, *options = command.split()
                print(f"{side}: {command}", flush=True)
                subprocess.run(
                    [bin_folder.absolute() / program, *options],
                    cwd=work,
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
            found.append(dict(fingerprints(work)))
    names = sorted(found[0].keys() | found[1].keys())
    differing = [name for name in names if found[0].get(name) != found[1].get(name)]
    print(f"{len(names) - len(differing)} of {len(names)} files are equal")
    for name in differing:
        print(f"differs: {name}")
    sys.exit(1 if differing else 0)


def fingerprints(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and sha256 of everything that must be equal."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in ("manifest.json", "settings.json", "compat.py"):
            continue
        content = path.read_bytes()
        if path.suffix in (".jsonl", ".json"):
            content = "\n".join(map(without_times, content.decode().splitlines())).encode()
        yield str(path.relative_to(folder)), hashlib.sha256(content).hexdigest()


def without_times(line: str) -> str:
    """A line of JSON without the time that it took."""
    try:
        record = json.loads(line)
    except ValueError:  # a line of an indented file
        return "" if '"milliseconds"' in line or "seconds" in line else line
    if isinstance(record, dict):
        record.pop("milliseconds", None)
    return json.dumps(record, sort_keys=True)


if __name__ == "__main__":
    main()
