"""The public names of sam2_edge, which the package itself imports on first use."""

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.errors import (
    BackendError,
    BundleError,
    CheckpointError,
    ExportError,
    LoopError,
    LostResultError,
    PromptError,
    Sam2EdgeError,
    SinkError,
    SourceError,
)
from sam2_edge.runtime.memory.policies import (
    DistractorMemory,
    MemoryPolicy,
    MotionMemory,
    OriginalMemory,
)
from sam2_edge.runtime.preprocess import PreparedFrame
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.segmenter import ImageSegmenter, Segmentation
from sam2_edge.runtime.streaming.camera_hub import CameraHub
from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult
from sam2_edge.runtime.tracker import VideoTracker

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CameraHub",
    "CameraLoop",
    "CheckpointError",
    "DistractorMemory",
    "ExportError",
    "FrameResult",
    "ImageSegmenter",
    "LoopError",
    "LoopResult",
    "LostResultError",
    "MemoryPolicy",
    "MotionMemory",
    "ObjectResult",
    "OriginalMemory",
    "PreparedFrame",
    "Prompt",
    "PromptError",
    "Sam2EdgeError",
    "Segmentation",
    "SinkError",
    "SourceError",
    "VideoTracker",
    "load_bundle",
]
