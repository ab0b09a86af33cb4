"""Engines of SAM 2.1 tiny with random weights, each built once per test run."""

from __future__ import annotations

from pathlib import Path

from sam2_edge import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph, Precision, graph_specs
from sam2_edge.bundle.manifest import EngineEntry
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import Calibration, ExportOptions
from sam2_edge.export.tensorrt.builder import EngineRequest, build_engine
from sam2_edge.export.tensorrt.options import EngineOptions
from sam2_edge.export.tensorrt.profiles import engine_profiles, engine_shapes
from sam2_edge.models.checkpoints import load_model
from tests.helpers.models import frames_of_a_clip
from tests.helpers.once import Once

OPTIONS = EngineOptions("tensorrt-rtx", ((8, 6),))


class RealEngines:
    """Bundles of graphs for GPUs, and engines for compute capability 8.6.

    The exporter and the builder take most of the tests' time, so that whoever comes first makes
    them, for all processes.
    """

    def __init__(self, once: Once) -> None:
        self._once = once

    def bundle(self, size: int, precision: Precision) -> Bundle:
        """Return the graphs at an image size."""

        def export(folder: Path) -> None:
            calibration = None
            if precision == "int8":
                data = folder.with_name(f"{folder.name}-data")
                calibration = Calibration(frames_of_a_clip(data), frames=16)
            model = load_model("sam2.1-hiera-tiny", random_seed=1, image_size=size)
            options = ExportOptions(precision=precision, target="gpu", calibration=calibration)
            export_bundle(model, folder, options)

        return load_bundle(self._once(f"tiny-{size}-{precision}", export))

    def engine(self, size: int, graph: Graph, precision: Precision) -> tuple[Path, EngineEntry]:
        """Return the engine of one graph, and what the builder says of it."""
        source = self.bundle(size, precision)
        geometry = source.manifest.geometry
        profile = engine_profiles(geometry, OPTIONS)[graph]

        def build(folder: Path) -> None:
            folder.mkdir()
            request = EngineRequest(
                graph=source.graph_path(graph),
                engine=folder / "engine",
                variant=OPTIONS.variant,
                compute_capabilities=tuple(OPTIONS.compute_capabilities),
                profile=profile,
                shapes=engine_shapes(graph_specs(geometry)[graph], profile),
                timing_cache=folder / "timing",
            )
            entry = build_engine(request, lambda _step: None)
            (folder / "entry.json").write_text(entry.model_dump_json())

        folder = self._once(f"tiny-{size}-{precision}-{graph.value}", build)
        entry = EngineEntry.model_validate_json((folder / "entry.json").read_text())
        return folder / "engine", entry
