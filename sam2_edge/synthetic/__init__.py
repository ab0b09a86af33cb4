"""Short synthetic clips with exact masks, deterministic by seed: `clip(7, frames=8, objects=2)`.

They are used to train and evaluate the bundled model, and in tests.
"""

from sam2_edge.synthetic.clip import SyntheticClip, center_click, clip
from sam2_edge.synthetic.textures import Split

__all__ = ["Split", "SyntheticClip", "center_click", "clip"]
