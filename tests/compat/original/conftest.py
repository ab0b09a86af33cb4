"""The original's models with the weights of ours, where the package sam2 is installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sam2_edge.compat.model import Sam2Model, open_model
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.models.checkpoints import load_model, load_original
from tests.compat.original import torchvision_shim
from tools.nano.architecture import FEED_FORWARD, HIDDEN, WIDTHS
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

OF_STILLS = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")
"""Where the weights are that pictures pass through."""


@dataclass(frozen=True)
class Sides:
    """One model on both sides; `original` is the original's package, by class name."""

    original: SimpleNamespace
    theirs: nn.Module
    ours: Sam2Model

    def predictor(self, **options: Any) -> Any:
        """The original's image predictor."""
        return self._sized(self.original.SAM2ImagePredictor(self.theirs, **options))

    def generator(self, **options: Any) -> Any:
        """The original's mask generator."""
        made = self.original.SAM2AutomaticMaskGenerator(self.theirs, **options)
        self._sized(made.predictor)
        return made

    @staticmethod
    def _sized(predictor: Any) -> Any:
        # The original takes these for granted, for pictures of 1024 pixels.
        predictor._bb_feat_sizes = [(SIZE // stride,) * 2 for stride in (4, 8, 16)]
        return predictor


@pytest.fixture(scope="session")
def original() -> SimpleNamespace:
    """The original's builders and classes, over a stand-in for torchvision if that is missing."""
    pytest.importorskip("sam2", reason="the original package sam2 1.1.0 is not installed")
    with torchvision_shim.standing_in_if_missing():
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
        from sam2.build_sam import build_sam2
        from sam2.sam2_image_predictor import SAM2ImagePredictor
    return SimpleNamespace(
        build_sam2=build_sam2,
        SAM2ImagePredictor=SAM2ImagePredictor,
        SAM2AutomaticMaskGenerator=SAM2AutomaticMaskGenerator,
    )


@pytest.fixture(scope="session")
def tiny_sides(original: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    """SAM 2.1 tiny with random weights; both sides read one file in the original's format."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    checkpoint = folder / "random.pt"
    bare = original.build_sam2(CONFIG, device="cpu", hydra_overrides_extra=SIZES)
    random = load_model("sam2.1-hiera-tiny", random_seed=SEED, image_size=SIZE).model
    torch.save({"model": original_state(random, bare)}, checkpoint)
    theirs = original.build_sam2(CONFIG, str(checkpoint), device="cpu", hydra_overrides_extra=SIZES)
    bundle = export_bundle(load_original(checkpoint, image_size=SIZE), folder / "bundle")
    return Sides(original, theirs, open_model(bundle, threads=1))


@pytest.fixture(scope="session")
def nano_sides(original: SimpleNamespace) -> Sides:
    """The bundled model, whose masks mean something; only what pictures pass through."""
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    theirs = original.build_sam2(CONFIG, device="cpu", hydra_overrides_extra=[*SIZES, *NANO_SIZES])
    # The original's builder fixes the decoder's sizes.
    theirs.sam_mask_decoder = MaskDecoder(
        transformer_dim=HIDDEN,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=HIDDEN, mlp_dim=FEED_FORWARD, num_heads=4
        ),
        iou_head_hidden_dim=HIDDEN,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
        dynamic_multimask_via_stability=True,
    ).eval()
    state = original_state(load_model("nano").model, theirs, only=OF_STILLS)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if name.startswith(OF_STILLS)]
    return Sides(original, theirs, open_model("nano", threads=1))


def original_state(
    model: nn.Module, theirs: nn.Module, *, only: tuple[str, ...] = ("",)
) -> dict[str, torch.Tensor]:
    """Our weights under those of the original's names that begin with one of `only`."""
    wanted = {n: t for n, t in theirs.state_dict().items() if n.startswith(only)}
    state = to_original(model.state_dict(), wanted)
    for name, tensor in wanted.items():
        assert state[name].shape == tensor.shape, name
    return state
