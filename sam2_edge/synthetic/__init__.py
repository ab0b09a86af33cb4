"""An endless source of short clips with exact masks, deterministic by seed; numpy and OpenCV only.

It trains and measures the bundled model and serves tests: `clip(7, frames=8, objects=2)`.
"""

from sam2_edge.synthetic.clip import SynthClip, centre_click, clip
from sam2_edge.synthetic.textures import Split

__all__ = ["Split", "SynthClip", "centre_click", "clip"]
