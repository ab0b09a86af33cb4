"""Models with the same weights in both packages, where the package sam2 is installed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sam2_edge.compat.model import open_model
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.models.checkpoints import load_model, load_original
from tests.compat.original import torchvision_shim
from tests.compat.original.models import (
    CONFIG,
    IMAGE_WEIGHTS,
    NANO_SIZES,
    SEED,
    SIZE,
    SIZES,
    ModelPair,
    original_state,
)
from tools.nano.architecture import FEED_FORWARD, HIDDEN


@pytest.fixture(scope="session")
def original_package() -> SimpleNamespace:
    """The original's builders and classes, with a substitute for torchvision if that is missing."""
    pytest.importorskip("sam2", reason="the original package sam2 1.1.0 is not installed")
    with torchvision_shim.substitute_if_missing():
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
        from sam2.build_sam import build_sam2
        from sam2.sam2_image_predictor import SAM2ImagePredictor
    return SimpleNamespace(
        build_sam2=build_sam2,
        SAM2ImagePredictor=SAM2ImagePredictor,
        SAM2AutomaticMaskGenerator=SAM2AutomaticMaskGenerator,
    )


@pytest.fixture(scope="session")
def tiny_pair(
    original_package: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> ModelPair:
    """SAM 2.1 tiny with random weights; both packages read one file in the original's format."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    checkpoint = folder / "random.pt"
    bare = original_package.build_sam2(CONFIG, device="cpu", hydra_overrides_extra=SIZES)
    random = load_model("sam2.1-hiera-tiny", random_seed=SEED, image_size=SIZE).model
    torch.save({"model": original_state(random, bare)}, checkpoint)
    original = original_package.build_sam2(
        CONFIG, str(checkpoint), device="cpu", hydra_overrides_extra=SIZES
    )
    bundle = export_bundle(load_original(checkpoint, image_size=SIZE), folder / "bundle")
    return ModelPair(original_package, original, open_model(bundle, threads=1))


@pytest.fixture(scope="session")
def nano_pair(original_package: SimpleNamespace) -> ModelPair:
    """The bundled model, whose masks are meaningful; only the weights that images use."""
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    original = original_package.build_sam2(
        CONFIG, device="cpu", hydra_overrides_extra=[*SIZES, *NANO_SIZES]
    )
    # The original's builder fixes the decoder's sizes.
    original.sam_mask_decoder = MaskDecoder(
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
    state = original_state(load_model("nano").model, original, only=IMAGE_WEIGHTS)
    missing, unexpected = original.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if name.startswith(IMAGE_WEIGHTS)]
    return ModelPair(original_package, original, open_model("nano", threads=1))
