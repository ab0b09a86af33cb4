"""The training loop: phases, optimizer, averaged weights, checkpoints, log and validation."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sam2_edge.bundle.storage import atomic_file
from sam2_edge.errors import CheckpointError
from sam2_edge.models.families import at_image_size
from tools.nano.architecture import untrained_nano
from tools.nano.data import Batch, batches
from tools.nano.objectives import MakeObjective, Masks, Objective
from tools.nano.recipe import RECIPE, WARM_UP, Phase
from tools.nano.rollout import Rollout
from tools.nano.validation import validate

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"

SAVE_EVERY = 100
VALIDATE_EVERY = 500
LOG_EVERY = 20

WEIGHT_DECAY = 0.05
CLIP_NORM = 1.0

AVERAGE = 0.998
"""Share of the averaged weights that stays at each step."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        folder: For checkpoint and log.
        workers: Processes that generate clips.
        half: Train in bfloat16, except for losses and weights.
        hours: Stop after this time; None for the whole recipe.
        start: Makes the model that training starts from, of a seed.
        objective: Makes what a phase minimizes.
    """

    folder: Path
    seed: int = 1
    device: str = "cpu"
    workers: int = 1
    half: bool = True
    hours: float | None = None
    recipe: tuple[Phase, ...] = RECIPE
    start: Callable[[int], PreTrainedModel] = untrained_nano
    objective: MakeObjective = Masks


@dataclass(slots=True)
class State:
    """The state of a run; step counts within the phase, total over all phases."""

    model: PreTrainedModel
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    phase: int = 0
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def train(settings: Settings) -> State:
    """Train to the end of the recipe or of the time, from the folder's checkpoint if it has one."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    state = _restored(settings) or _fresh(settings)
    deadline = time.monotonic() + 3600 * settings.hours if settings.hours else None
    while state.phase < len(settings.recipe):
        finished = _run_phase(state, settings, deadline)
        if finished:
            state.phase, state.step = state.phase + 1, 0
        save(state, settings)
        if not finished:
            break
    return state


def averaged_model(state: State, size: int) -> PreTrainedModel:
    """A model of the averaged weights in evaluation mode, at an image size."""
    model = at_size(state.model, size)
    model.load_state_dict(state.average, strict=False)
    return model.eval()


def at_size(model: PreTrainedModel, size: int) -> PreTrainedModel:
    """The same weights in a model of another image size."""
    config = at_image_size(copy.deepcopy(model.config), size)
    other = type(model)(config).to(next(model.parameters()).device)
    other.load_state_dict(model.state_dict())
    return other


def save(state: State, settings: Settings) -> None:
    """Write the checkpoint, whole or not at all."""
    content = {
        "model": state.model.state_dict(),
        "average": state.average,
        "optimizer": state.optimizer.state_dict(),
        "phase": state.phase,
        "step": state.step,
        "total": state.total,
        "seconds": state.seconds,
        "history": state.history,
    }
    with atomic_file(settings.folder / CHECKPOINT) as partial:
        torch.save(content, partial)


def _fresh(settings: Settings) -> State:
    model = settings.start(settings.seed).to(settings.device)
    return State(model, _copied(model), _optimizer(model))


def _restored(settings: Settings) -> State | None:
    path = settings.folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location=settings.device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); delete it to start again, or choose "
            "another folder"
        ) from error
    model = settings.start(settings.seed).to(settings.device)
    model.load_state_dict(content["model"])
    optimizer = _optimizer(model)
    optimizer.load_state_dict(content["optimizer"])
    rest = {k: content[k] for k in ("phase", "step", "total", "seconds", "history")}
    return State(model, content["average"], optimizer, **rest)


def _copied(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters, and the statistics of batch normalization."""
    return {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters and buffers under all their names."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return parameters | dict(model.named_buffers(remove_duplicate=False))


def _optimizer(model: PreTrainedModel) -> torch.optim.Optimizer:
    """AdamW; vectors and position embeddings do not decay."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99))


def _run_phase(state: State, settings: Settings, deadline: float | None) -> bool:
    """Run the current phase to its end (True) or to the deadline (False)."""
    phase = settings.recipe[state.phase]
    # The optimizer's parameters, and batch statistics, move into the model of this phase's size.
    model = at_size(state.model, phase.size).train()
    own, kept = _tensors(model), _tensors(state.model)
    for name in state.model.state_dict():
        own[name].data = kept[name].data
    objective = settings.objective(model, phase, half=settings.half)
    source = batches(phase, settings.seed, state.step, settings.workers)
    recent: list[dict[str, float]] = []
    for batch in source:
        started = time.monotonic()
        torch.manual_seed(settings.seed + state.total)  # correcting clicks are drawn in the step
        recent.append(_step(state, model, objective, batch, _rate(state, phase)))
        state.step, state.total = state.step + 1, state.total + 1
        state.seconds += time.monotonic() - started
        if state.total % LOG_EVERY == 0:
            _write_log(settings, _summary(state, phase, recent))
            recent = []
        if state.total % VALIDATE_EVERY == 0:
            _validate(state, phase, settings)
        if state.total % SAVE_EVERY == 0:
            save(state, settings)
        if deadline is not None and time.monotonic() > deadline:
            return state.step == phase.steps
    return True


def _step(
    state: State, model: PreTrainedModel, objective: Objective, batch: Batch, rate: float
) -> dict[str, float]:
    """One optimizer step; returns the parts of the loss."""
    means = objective(batch)
    state.optimizer.zero_grad()
    torch.autograd.backward(means["total"])
    own = list(model.parameters())
    for kept, moved in zip(state.model.parameters(), own, strict=True):
        kept.grad = moved.grad
        moved.grad = None
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), CLIP_NORM)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    if torch.isfinite(norm):
        state.optimizer.step()
        _average(state)
    return {**{k: v.item() for k, v in means.items()}, "norm": norm.item()}


def _average(state: State) -> None:
    # In the first steps a long average would be of the untrained weights.
    share = min(AVERAGE, (1 + state.total) / (10 + state.total))
    current = state.model.state_dict()
    for name, average in state.average.items():
        average.lerp_(current[name], 1 - share)


def _rate(state: State, phase: Phase) -> float:
    done = state.step / phase.steps
    rate = phase.rate * (1 - done * (1 - phase.fall))
    return rate * min(1.0, (state.total + 1) / WARM_UP)


def _summary(state: State, phase: Phase, recent: list[dict[str, float]]) -> dict[str, Any]:
    means = {k: round(sum(r[k] for r in recent) / len(recent), 4) for k in recent[0]}
    return {
        "phase": phase.name,
        "step": state.step,
        "of": phase.steps,
        "total": state.total,
        "hours": round(state.seconds / 3600, 3),
        "loss": means,
    }


def _validate(state: State, phase: Phase, settings: Settings) -> None:
    model = averaged_model(state, phase.size)
    figures = validate(Rollout(model, half=settings.half), phase)
    entry = {"phase": phase.name, "total": state.total, "validation": figures}
    state.history.append(entry)
    _write_log(settings, entry)


def _write_log(settings: Settings, entry: dict[str, Any]) -> None:
    with (settings.folder / LOG).open("a") as file:
        file.write(json.dumps(entry) + "\n")
    log.info("%s", json.dumps(entry))
