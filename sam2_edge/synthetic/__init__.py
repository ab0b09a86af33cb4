"""Short clips with exact masks, endless and deterministic by seed; numpy and OpenCV only.

They train and measure the bundled model and serve tests: `clip(7, frames=8, objects=2)`.
"""

from sam2_edge.synthetic.clip import SyntheticClip, center_click, clip
from sam2_edge.synthetic.textures import Split

__all__ = ["Split", "SyntheticClip", "center_click", "clip"]
