"""Finds packages that are installed over or before each other, which pip allows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path

from sam2_edge.extras import reinstall


def conflict(module: str, prefix: str, *, damaged: bool) -> str | None:
    """Say which packages conflict, and how to repair that; None if none do.

    Args:
        module: Name of a module that several packages bring, such as onnxruntime.
        prefix: How the names of these packages begin.
        damaged: Whether the module cannot be imported, or has no contents.
    """
    places = places_of(module)
    packages = packages_with(module, prefix, places[:1] or sys.path)
    if len(packages) > 1:
        return (
            f"{' and '.join(packages)} are installed over each other, so that parts of one are "
            f"missing; choose one: {reinstall(packages, _chosen(packages))}"
        )
    if packages and damaged:
        return f"{packages[0]} is damaged; {reinstall(packages, _chosen(packages))}"
    if len(places) > 1:
        return (
            f"the {module} in {places[0]} hides the one in {places[1]}; if that is JetPack's, use "
            f"it: pip uninstall -y {' '.join(packages) or module}"
        )
    return None


def packages_with(module: str, prefix: str, folders: Sequence[str]) -> list[str]:
    """Name the packages in some folders of sys.path that bring a module; see `conflict`."""
    found = set()
    for distribution in distributions(path=list(folders)):
        name = distribution.metadata["Name"] or ""  # None: what a failed uninstallation left
        if name.startswith(prefix):
            files = distribution.files
            if files is None or any(file.parts[0] == module for file in files):
                found.add(name)
    return sorted(found)


def places_of(module: str) -> list[str]:
    """Folders of sys.path with a module; Python uses that in the first."""
    places: dict[Path, str] = {}
    for folder in sys.path:
        spec = PathFinder.find_spec(module, [folder])
        if spec and spec.origin:  # None: a folder without code
            places.setdefault(Path(folder).resolve(), folder)
    return list(places.values())


def _chosen(packages: Sequence[str]) -> str:
    """What to install instead of packages that share files: the most that one of them can do."""
    if "onnxruntime-gpu" in packages:
        return "sam2_edge[cuda]"
    return "sam2_edge[cpu]" if "onnxruntime" in packages else packages[0]
