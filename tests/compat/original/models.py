"""One model in the original package and in ours, with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from sam2_edge.compat.model import Sam2Model
from tools.nano.architecture import HIDDEN, WIDTHS
from tools.original_names import to_original

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
SIZE = 256
SEED = 3

SIZES = [
    f"++model.image_size={SIZE}",
    f"++model.memory_attention.layer.self_attention.feat_sizes=[{SIZE // 16},{SIZE // 16}]",
    f"++model.memory_attention.layer.cross_attention.feat_sizes=[{SIZE // 16},{SIZE // 16}]",
]

NANO_SIZES = [
    f"++model.image_encoder.trunk.embed_dim={WIDTHS[0]}",
    "++model.image_encoder.trunk.stages=[1,2,6,1]",
    "++model.image_encoder.trunk.global_att_blocks=[6,8]",
    "++model.image_encoder.trunk.window_spec=[8,4,8,4]",
    "++model.image_encoder.trunk.window_pos_embed_bkg_spatial_size=[8,8]",
    f"++model.image_encoder.neck.d_model={HIDDEN}",
    f"++model.image_encoder.neck.position_encoding.num_pos_feats={HIDDEN}",
    f"++model.image_encoder.neck.backbone_channel_list={list(WIDTHS[::-1])}".replace(" ", ""),
    f"++model.memory_attention.d_model={HIDDEN}",
]

IMAGE_WEIGHTS = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")
"""Prefixes of the weights that single images use."""


@dataclass(frozen=True)
class ModelPair:
    """One model in both packages; `package` has the original's classes by name."""

    package: SimpleNamespace
    original: nn.Module
    ours: Sam2Model

    def predictor(self, **options: Any) -> Any:
        """The original's image predictor."""
        return self._sized(self.package.SAM2ImagePredictor(self.original, **options))

    def generator(self, **options: Any) -> Any:
        """The original's mask generator."""
        made = self.package.SAM2AutomaticMaskGenerator(self.original, **options)
        self._sized(made.predictor)
        return made

    @staticmethod
    def _sized(predictor: Any) -> Any:
        # The original hard-codes these for images of 1024 pixels.
        predictor._bb_feat_sizes = [(SIZE // stride,) * 2 for stride in (4, 8, 16)]
        return predictor


def original_state(
    model: nn.Module, original: nn.Module, *, only: tuple[str, ...] = ("",)
) -> dict[str, torch.Tensor]:
    """Weights by the original's names, as far as these begin with one of `only`."""
    wanted = {n: t for n, t in original.state_dict().items() if n.startswith(only)}
    state = to_original(model.state_dict(), wanted)
    for name, tensor in wanted.items():
        assert state[name].shape == tensor.shape, name
    return state
