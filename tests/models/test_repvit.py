"""EdgeTAM's backbone against timm's, and its form for inference against its own."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, EdgeTamVisionConfig

from sam2_edge.errors import CheckpointError
from sam2_edge.models.edgetam.repvit import (
    PUBLISHED,
    PUBLISHED_ARGUMENTS,
    RepVitBackbone,
    RepVitConfig,
    fused,
    repvit_config,
)
from sam2_edge.models.random_init import settle_norms
from tests.helpers.interpreter import run_python
from tests.helpers.timm_models import import_timm

PREFIX = "timm_model."

SIZES = {
    "published": RepVitConfig(),
    "small": RepVitConfig(widths=(16, 24, 64, 72), depths=(1, 2, 3, 1)),
    "two stages": RepVitConfig(widths=(40, 88), depths=(0, 3)),
}


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return import_timm()


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys())
def config(request: pytest.FixtureRequest) -> RepVitConfig:
    return request.param


def random_backbone(config: RepVitConfig, seed: int = 3) -> RepVitBackbone:
    """All parameters are random, and so are the statistics of batch normalization."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = RepVitBackbone(config)
        with torch.no_grad():
            for name, parameter in backbone.named_parameters():
                fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
                parameter.normal_(1.0 if name.endswith("bn.weight") else 0.0, fan_in**-0.5)
        settle_norms(backbone, torch.randn(2, 3, 128, 128))
    return backbone.eval()


def image(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(4))


def features(backbone: RepVitBackbone, pixels: Tensor) -> tuple[Tensor, ...]:
    return backbone(pixels).last_hidden_state


def assert_same_features(got: Any, want: Any) -> None:
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert 0.3 < other.std() < 30.0  # else errors would not show
        torch.testing.assert_close(one, other, atol=2e-5 * float(other.abs().max()), rtol=0.0)


def of_timm(timm: ModuleType, config: RepVitConfig) -> nn.Module:
    """The model that transformers' wrapper would build."""
    stages = list(range(len(config.widths)))
    arguments = PUBLISHED_ARGUMENTS | {"out_indices": stages}
    sizes = {"embed_dim": tuple(config.widths), "depth": tuple(config.depths)}
    return timm.create_model(PUBLISHED, pretrained=False, num_classes=0, **arguments, **sizes)


def test_published_sizes_are_those_of_timm(timm: ModuleType) -> None:
    model = timm.create_model(
        PUBLISHED, pretrained=False, num_classes=0, **copy.deepcopy(PUBLISHED_ARGUMENTS)
    )
    shapes = {PREFIX + name: t.shape for name, t in model.state_dict().items()}
    own = {name: t.shape for name, t in RepVitBackbone(RepVitConfig()).state_dict().items()}
    assert own == shapes


@torch.inference_mode()
def test_loads_tensors_of_timm_and_computes_the_same(
    timm: ModuleType, config: RepVitConfig
) -> None:
    own = random_backbone(config)
    reference = of_timm(timm, config).eval()
    reference.load_state_dict(
        {name.removeprefix(PREFIX): tensor for name, tensor in own.state_dict().items()}
    )
    again = RepVitBackbone(config).eval()
    again.load_state_dict({PREFIX + name: t for name, t in reference.state_dict().items()})
    pixels = image(96, 128)
    assert_same_features(features(again, pixels), reference(pixels))


@torch.inference_mode()
def test_fused_computes_the_same_with_single_convolutions(config: RepVitConfig) -> None:
    backbone = random_backbone(config)
    before = {name: t.clone() for name, t in backbone.state_dict().items()}
    single = fused(backbone)
    pixels = image(128, 96)
    assert_same_features(features(single, pixels), features(backbone, pixels))

    assert not [m for m in single.modules() if isinstance(m, nn.BatchNorm2d)]
    blocks = sum(config.depths) + len(config.widths) - 1
    reductions = len(config.widths) - 1
    excited = sum((depth + 1) // 2 for depth in config.depths)
    convolutions = [m for m in single.modules() if isinstance(m, nn.Conv2d)]
    # A block has three, a reduction two and two more to mix channels.
    assert len(convolutions) == 2 + 3 * blocks + 4 * reductions + 2 * excited
    assert before.keys() == backbone.state_dict().keys()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@torch.inference_mode()
def test_features_are_at_strides_4_to_32(config: RepVitConfig) -> None:
    shapes = [list(f.shape) for f in features(random_backbone(config), image(64, 128))]
    assert shapes == [
        [2, width, 64 // (4 * 2**level), 128 // (4 * 2**level)]
        for level, width in enumerate(config.widths)
    ]


@torch.inference_mode()
def test_is_the_backbone_of_edgetam_and_comes_back_from_a_saved_configuration(tmp_path) -> None:
    sizes = SIZES["small"]
    vision = EdgeTamVisionConfig(
        backbone_config=sizes, backbone_channel_list=list(sizes.widths)[::-1]
    )
    EdgeTamVideoConfig(vision_config=vision).save_pretrained(tmp_path)
    model = EdgeTamVideoModel(EdgeTamVideoConfig.from_pretrained(tmp_path)).eval()
    encoder = model.vision_encoder
    assert isinstance(encoder.backbone, RepVitBackbone)
    pixels = image(64, 64)
    encoded = encoder(pixels)
    assert [f.shape[-1] for f in encoded.fpn_hidden_states] == [16, 8, 4]
    finest = features(encoder.backbone, pixels)[0]
    torch.testing.assert_close(encoded.fpn_hidden_states[0], encoder.neck.convs[-1](finest))


@pytest.mark.parametrize(
    "architecture", ["repvit_m1", "repvit_m1.dist_in1k", "timm/repvit_m1.dist_in1k"]
)
def test_takes_the_place_of_the_published_configuration(architecture: str) -> None:
    published = {"architecture": architecture, "model_args": PUBLISHED_ARGUMENTS}
    assert repvit_config(published).to_dict() == RepVitConfig().to_dict()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": "repvit_m1_1"}, "the backbone is repvit_m1_1; EdgeTAM is supported with"),
        ({"architecture": None}, "the backbone is None"),
        ({"model_args": None}, r"has model_args \{\}; only"),
        ({"model_args": PUBLISHED_ARGUMENTS | {"out_indices": [1, 2, 3]}}, r"\[1, 2, 3\]"),
    ],
)
def test_another_backbone_is_refused(changed: dict[str, Any], message: str) -> None:
    published = {"architecture": PUBLISHED, "model_args": PUBLISHED_ARGUMENTS} | changed
    with pytest.raises(CheckpointError, match=message):
        repvit_config(published)


def test_needs_neither_timm_nor_torchvision() -> None:
    run_python(
        "import sys; sys.modules.update(dict.fromkeys(('timm', 'torchvision')))\n"
        "from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, EdgeTamVisionConfig\n"
        "from sam2_edge.models.edgetam.repvit import RepVitConfig\n"
        "vision = EdgeTamVisionConfig(backbone_config=RepVitConfig())\n"
        "EdgeTamVideoModel(EdgeTamVideoConfig(vision_config=vision))\n"
    )


def test_may_be_imported_twice() -> None:
    run_python(
        "import importlib, sam2_edge.models.edgetam.repvit as repvit\n"
        "repvit = importlib.reload(repvit)\n"
        "from transformers import AutoModel\n"
        "config = repvit.RepVitConfig(widths=(8,), depths=(1,))\n"
        "assert type(AutoModel.from_config(config)) is repvit.RepVitBackbone\n"
    )
