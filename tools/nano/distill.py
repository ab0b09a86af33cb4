"""edgetam-nano, trained by distillation from the bundled nano: where it starts, and its recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EdgeTamVideoModel, PreTrainedModel, Sam2VideoModel

from sam2_edge.models.checkpoints import load_model
from sam2_edge.models.edgetam.repvit import ChannelMixer
from tools.nano.data import batches
from tools.nano.edgetam import edgetam_nano_config
from tools.nano.objectives import (
    FeatureDistillation,
    Masks,
    MemoryDistillation,
    Objective,
    Recording,
)
from tools.nano.recipe import Phase
from tools.nano.rollout import Rollout
from tools.nano.trainer import Settings

FEATURES = Phase("features", 3500, 256, 16, 1, 3, rate=2.5e-3, fall=0.02)
MEMORY = Phase("memory", 200, 256, 2, 8, 2, rate=1e-3, fall=0.6, span=32, lost=0.4)
MASKS = Phase("masks", 500, 256, 3, 6, 2, rate=3e-4, fall=0.03, corrected=0.15, span=32, lost=0.4)
LONGER = Phase(
    "longer clips", 120, 256, 2, 10, 2, rate=2e-4, fall=0.03, corrected=0.15, span=32, lost=0.4
)

RECIPE = (FEATURES, MEMORY, MASKS, LONGER)

BUNDLED = "nano"
"""The teacher, as `load_model` finds it."""

SAMPLED = Phase("sampled memories", 1, 256, 4, 4, 2, rate=0.0, span=32)
"""Clips by which the perceiver is initialized."""


def distilled(settings: Settings) -> Settings:
    """The same settings for edgetam-nano, taught by the bundled nano."""
    nano = load_model(BUNDLED).model.to(settings.device).eval()
    return dataclasses.replace(
        settings,
        recipe=RECIPE,
        start=lambda seed: from_nano(nano, seed),
        objective=Distillation(nano),
    )


class Distillation:
    """Makes the objective of a phase, by its name."""

    def __init__(self, nano: Sam2VideoModel) -> None:
        self._nano = nano

    def __call__(self, model: PreTrainedModel, phase: Phase, *, half: bool) -> Objective:
        """That of "features", of "memory", or of any other phase: masks."""
        if phase.name == FEATURES.name:
            return FeatureDistillation(model, self._nano, half=half)
        if phase.name == MEMORY.name:
            return MemoryDistillation(model, self._nano, half=half)
        return Masks(model, phase, half=half)


def from_nano(nano: Sam2VideoModel, seed: int) -> EdgeTamVideoModel:
    """A model for training: nano's weights, a fresh backbone, a perceiver that averages."""
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = EdgeTamVideoModel(edgetam_nano_config())
        with torch.no_grad():
            _start_backbone(model.vision_encoder)
            _start_perceiver(model.spatial_perceiver, memories(nano, SAMPLED, seed))
            _copy_shared(model, nano)
    finally:
        torch.random.set_rng_state(state)
    return model


def _start_backbone(encoder: nn.Module) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
        elif isinstance(module, ChannelMixer):
            module.conv2.bn.weight.zero_()  # as in timm: blocks start as the identity


def _start_perceiver(perceiver: Any, memory: Tensor) -> None:
    """Each placed latent starts as the mean of its window, as like nano's memory as may be.

    Args:
        perceiver: Of transformers' model.
        memory: Examples [N,m,h,w].
    """
    for layer in perceiver.layers:
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        cross = layer.cross_attention
        for projection in (cross.k_proj, cross.v_proj, cross.o_proj):
            nn.init.eye_(projection.weight)
        for added in (layer.mlp, layer.self_mlp):
            added.down_proj.weight.zero_()
        layer.self_attention.o_proj.weight.zero_()
    perceiver.latents_1d.normal_(0.0, 0.02)
    perceiver.latents_2d.zero_()  # normalized to a query of zero, which weights all cells equally
    cells = memory.movedim(1, -1).flatten(0, 2)
    normed = F.layer_norm(cells, cells.shape[1:])
    deviations = normed - normed.mean(dim=0), cells - cells.mean(dim=0)
    slope = (deviations[0] * deviations[1]).mean(dim=0) / normed.var(dim=0)
    perceiver.layer_norm.weight.copy_(slope)
    perceiver.layer_norm.bias.copy_(cells.mean(dim=0) - slope * normed.mean(dim=0))


def _copy_shared(model: EdgeTamVideoModel, nano: Sam2VideoModel) -> None:
    """All that has the same shape in both, and the hidden units that matter most."""
    state = model.state_dict()
    for name, value in nano.state_dict().items():
        if not name.startswith(("vision_encoder.", "memory_attention.layers.")):
            state[name].copy_(value)
    layers = zip(model.memory_attention.layers, nano.memory_attention.layers, strict=True)
    for own, given in layers:
        _copy_feed_forward(own.mlp, given.linear1, given.linear2)
        rest = {n: v for n, v in given.state_dict().items() if not n.startswith("linear")}
        own.load_state_dict(rest, strict=False)


def _copy_feed_forward(own: Any, up: nn.Linear, down: nn.Linear) -> None:
    """Take the units with the largest weights."""
    size = up.weight.norm(dim=1) * down.weight.norm(dim=0)
    units = size.topk(len(own.up_proj.weight)).indices.sort().values
    own.up_proj.weight.copy_(up.weight[units])
    own.up_proj.bias.copy_(up.bias[units])
    own.down_proj.weight.copy_(down.weight[:, units])
    own.down_proj.bias.copy_(down.bias)


@torch.no_grad()
def memories(nano: Sam2VideoModel, phase: Phase, seed: int) -> Tensor:
    """Memories [N,m,h,w] of nano on the clips of a phase."""
    rollout = Rollout(nano.eval(), half=False)
    seen = Recording(rollout.memory)
    for batch in batches(phase, seed, 0, 0):
        rollout.run(batch)
    return torch.cat([memory for _, memory in seen.take()])
