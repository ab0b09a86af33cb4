"""The original `sam2` package's API on exported graphs, for code that was written for it."""

from sam2_edge.extras import naming_the_extra

with naming_the_extra():
    from sam2_edge.compat.build import (
        build_sam2,
        build_sam2_hf,
        build_sam2_video_predictor,
        build_sam2_video_predictor_hf,
    )
    from sam2_edge.compat.image.automatic_masks import SAM2AutomaticMaskGenerator
    from sam2_edge.compat.image.predictor import SAM2ImagePredictor
    from sam2_edge.compat.model import Sam2Model, open_model
    from sam2_edge.compat.video.predictor import SAM2VideoPredictor
    from sam2_edge.compat.video.state import InferenceState

__all__ = [
    "InferenceState",
    "SAM2AutomaticMaskGenerator",
    "SAM2ImagePredictor",
    "SAM2VideoPredictor",
    "Sam2Model",
    "build_sam2",
    "build_sam2_hf",
    "build_sam2_video_predictor",
    "build_sam2_video_predictor_hf",
    "open_model",
]
