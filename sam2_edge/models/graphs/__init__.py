"""The exported graphs as PyTorch modules over the submodules of a video model of transformers."""

from __future__ import annotations

from typing import Any

from torch import nn

from sam2_edge.bundle.contract import Graph, GraphTarget, MemoryRounding
from sam2_edge.models.graphs.image_encoder import ImageEncoder
from sam2_edge.models.graphs.mask_bits import MaskBits
from sam2_edge.models.graphs.mask_decoder import MaskDecoder
from sam2_edge.models.graphs.mask_prompt import MaskPrompt
from sam2_edge.models.graphs.memory_attention import MemoryAttention
from sam2_edge.models.graphs.memory_encoder import MemoryEncoder


def graph_modules(
    model: Any,
    *,
    memory_rounding: MemoryRounding = "bfloat16",
    target: GraphTarget = "cpu",
) -> dict[Graph, nn.Module]:
    """One module per graph of the contract, in evaluation mode if the model is."""
    modules: dict[Graph, nn.Module] = {
        Graph.IMAGE_ENCODER: ImageEncoder(model, target=target),
        Graph.MEMORY_ATTENTION: MemoryAttention(model, target=target),
        Graph.MASK_PROMPT: MaskPrompt(model),
        Graph.MASK_DECODER: MaskDecoder(model),
        Graph.MEMORY_ENCODER: MemoryEncoder(model, rounding=memory_rounding),
        Graph.MASK_BITS: MaskBits(),
    }
    for module in modules.values():
        module.train(model.training)
    return modules
