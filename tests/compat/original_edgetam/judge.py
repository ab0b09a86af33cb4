"""Runs original EdgeTAM: `python -m tests.compat.original_edgetam.judge FOLDER`.

The folder of its package must come first on the path. FOLDER has a clip for each session, and
receives random weights as random.pt and the results.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.compat.original_edgetam import original
from tests.compat.original_edgetam.sessions import (
    ROUNDED,
    SESSIONS,
    Results,
    Session,
    perform,
    segment,
)

SEED = 2
CELLS = 64
"""Side of the memory that the perceiver is run with: that of images of 1024 pixels."""


def judge(folder: Path) -> None:
    """Write weights and results."""
    torch.manual_seed(SEED)
    model = original.build()
    original.draw_weights(model)
    torch.save({"model": model.state_dict()}, folder / "random.pt")
    with original.memory_in_float32():
        for session in SESSIONS:
            np.savez(folder / f"{session.name}.npz", **track(model, folder, session))
    np.savez(folder / "rounded.npz", **track(model, folder, ROUNDED))
    predictor = original.image_predictor(model)
    image = folder / SESSIONS[0].name / "00000.jpg"
    np.savez(folder / "image.npz", **segment(predictor, image))
    memory, latents = compress(model)
    np.savez(folder / "perceiver.npz", memory=memory.numpy(), latents=latents.numpy())


def track(model: Any, folder: Path, session: Session) -> Results:
    """Results object by object, as the original's perceiver fails with more than one."""
    results: Results = {}
    for one in session.objects:
        results |= perform(model, folder / session.name, session, [one])
    return results


@torch.inference_mode()
def compress(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Random memories [2,m,h,w] and their latents [2,T,m], one at a time."""
    memory = torch.randn(2, model.mem_dim, CELLS, CELLS)
    position = model.memory_encoder.position_encoding(memory[:1])
    latents = [model.spatial_perceiver(one[None], position)[0] for one in memory]
    return memory, torch.cat(latents)


if __name__ == "__main__":
    torch.set_num_threads(1)
    judge(Path(sys.argv[1]))
