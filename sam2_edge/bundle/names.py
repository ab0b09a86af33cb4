"""Names of models: those in the package, and those that are published and can be exported.

Known without PyTorch, so that a wrong name is an error at once.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sam2_edge.bundle.contract import MAX_IMAGE_SIZE

_FOLDER = Path(__file__).parent.parent / "models" / "bundled"

BUNDLED = {name: _FOLDER / name for name in ("nano", "edgetam-nano")}
"""Folders of the bundles in the package, by name; each also holds its model's weights."""

BUNDLED_AS = {"nano": "sam2.1-hiera-tiny", "edgetam-nano": "edgetam"}
"""Published models of the same architecture."""


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model that can be exported.

    Attributes:
        hub_id: The repository on the Hugging Face Hub.
        image_sizes: Sides of the model input, pixels.
    """

    hub_id: str
    image_sizes: range


def _multiples(smallest: int, step: int) -> range:
    return range(smallest, MAX_IMAGE_SIZE + 1, step)


PUBLISHED = {
    **{
        f"{generation}-hiera-{size}": PublishedModel(
            f"facebook/{generation}-hiera-{size}", _multiples(64, 32)
        )
        for generation in ("sam2.1", "sam2")
        for size in ("tiny", "small", "base-plus", "large")
    },
    "edgetam": PublishedModel("yonigozlan/EdgeTAM-hf", _multiples(256, 256)),
    "sam3": PublishedModel("facebook/sam3", _multiples(336, 336)),
}
"""By name. `models/families.py` has the same in the form that PyTorch needs."""

_log = logging.getLogger(__name__)


def published(name: str) -> PublishedModel | None:
    """The model with this name or repository; None if there is none."""
    return PUBLISHED.get(name) or next((m for m in PUBLISHED.values() if m.hub_id == name), None)


def bundled_folder(name: str | Path) -> Path | None:
    """The folder of a bundle in the package; None if the name is not one of them.

    The name wins over a folder with the same name, which a log message says.
    """
    folder = BUNDLED.get(str(name))
    if folder is not None and os.path.lexists(name):
        _log.warning("%s is the bundled model; for the folder, give .%s%s", name, os.sep, name)
    return folder


def path_from_user(text: str) -> Path:
    """A path that is not taken for the name of a bundle unless the text is just the name."""
    path = Path(text)
    return path.absolute() if text not in BUNDLED and str(path) in BUNDLED else path


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """A question such as "; did you mean nano?", or nothing if no name is similar."""
    close = difflib.get_close_matches(word.lower(), list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def no_such_model(name: str) -> str:
    """The message for a MODEL to export that is not there."""
    return (
        f"'{name}' is neither a file, a folder nor a known model"
        f"{did_you_mean(name, [*BUNDLED, *PUBLISHED])}; known models: "
        + ", ".join([*BUNDLED, *PUBLISHED])
    )


def no_such_bundle(path: Path) -> str:
    """The message for a bundle that is not there."""
    name = str(path)
    if published(name) is not None:
        return (
            f"{name} is a model, not a bundle: export it with sam2-edge export {name} --output DIR "
            f"and give DIR, or give {' or '.join(BUNDLED)}, which are bundled"
        )
    return (
        f"{name} is not a bundle: it does not exist{did_you_mean(name, [*BUNDLED, *PUBLISHED])}; "
        f"give {' or '.join(BUNDLED)}, which are bundled, or a folder that sam2-edge export writes "
        f"from one of: {', '.join(PUBLISHED)}"
    )
