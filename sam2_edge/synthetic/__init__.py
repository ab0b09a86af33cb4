"""An endless source of short clips with exact masks, deterministic by seed; numpy and OpenCV only.

It trains and measures the bundled model and serves tests: `clip(7, frames=8, objects=2)`.
"""

from sam2_edge.synthetic.clip import SyntheticClip, center_click, clip
from sam2_edge.synthetic.textures import Split

__all__ = ["Split", "SyntheticClip", "center_click", "clip"]
