"""Synthetic clips are deterministic, have exact masks, and contain difficult events."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from sam2_edge.errors import SourceError
from sam2_edge.synthetic import SyntheticClip, center_click, clip, textures
from sam2_edge.synthetic.effects import degrade, random_degradation
from sam2_edge.synthetic.scene import Look, Painter, Scene, Thing, outline_mask, random_scene


@pytest.fixture(scope="module")
def many() -> list[SyntheticClip]:
    return [clip(seed, size=96, split="heldout") for seed in range(40)]


def _digest(drawn: SyntheticClip) -> str:
    return hashlib.sha256(drawn.frames.tobytes() + drawn.masks.tobytes()).hexdigest()


def test_a_seed_gives_the_same_clip_in_every_process() -> None:
    code = (
        "import hashlib; from sam2_edge.synthetic import clip; c = clip(3, frames=3, size=64);"
        "print(hashlib.sha256(c.frames.tobytes() + c.masks.tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other == _digest(clip(3, frames=3, size=64))
    assert other != _digest(clip(4, frames=3, size=64))
    assert other != _digest(clip(3, frames=3, size=64, split="heldout"))


def test_arrays_are_as_documented(many: list[SyntheticClip]) -> None:
    for drawn in many:
        assert drawn.frames.shape == (32, 96, 96, 3)
        assert drawn.frames.dtype == drawn.masks.dtype == np.uint8
        assert drawn.masks.shape == (32, 96, 96)
        assert set(np.unique(drawn.masks)) <= {0, 1, 2}
        for i in range(2):
            seen = (drawn.masks == i + 1).any(axis=(1, 2))
            np.testing.assert_array_equal(drawn.present[:, i], seen)
        assert ((drawn.occluded >= 0) & (drawn.occluded <= 1)).all()


def test_lookalikes_do_not_change_the_rest_of_the_scene() -> None:
    scenes = [
        random_scene(np.random.default_rng(3), frames=4, objects=2, lookalikes=n) for n in (0, 3)
    ]
    tracked = [t for t in scenes[0].things if t.object_id]
    assert len(scenes[1].things) == len(scenes[0].things) + 3
    for thing in scenes[0].things:
        assert any(np.array_equal(thing.maps, other.maps) for other in scenes[1].things)
    alike = [
        t
        for t in scenes[1].things
        if not t.object_id and any(t.shape is o.shape or _alike(t, o) for o in tracked)
    ]
    assert len(alike) >= 3
    plain, crowded = (clip(3, frames=4, size=64, lookalikes=n) for n in (0, 3))
    assert _digest(plain) == _digest(clip(3, frames=4, size=64)) != _digest(crowded)


def _alike(thing: Thing, other: Thing) -> bool:
    outlines = zip(thing.shape, other.shape, strict=False)
    return thing.look.number == other.look.number and all(
        np.array_equal(a[0], b[0]) for a, b in outlines
    )


def test_every_object_can_be_clicked_on_in_the_first_frame(many: list[SyntheticClip]) -> None:
    for drawn in many:
        for object_id in (1, 2):
            mask = drawn.mask(0, object_id)
            x, y = center_click(mask)
            assert mask[int(y), int(x)]


def test_objects_hide_leave_return_and_move_far(many: list[SyntheticClip]) -> None:
    hidden = sum(bool((c.occluded > 0.5).any()) for c in many)
    gone = [c for c in many if not c.present.all()]
    back = [c for c in gone if (np.diff(c.present.astype(int), axis=0) > 0).any()]
    moved = sum(_moved(c) for c in many)
    areas = np.array([(c.masks[0] == i).mean() for c in many for i in (1, 2)])
    assert hidden >= 8
    assert len(gone) >= 5
    assert len(back) >= 4
    assert moved >= 25
    assert areas.min() < 0.02
    assert areas.max() > 0.15


def _moved(drawn: SyntheticClip) -> bool:
    """Whether the mask of an object ever overlaps its first one by less than half."""
    first = drawn.mask(0, 1)
    return any((first & drawn.mask(t, 1)).sum() < 0.5 * first.sum() for t in range(32))


def test_masks_are_exactly_the_drawn_pixels() -> None:
    """With plain colors instead of textures, each pixel off the edges has the color of its mask."""
    size = 128
    for seed in range(6):
        scene = random_scene(np.random.default_rng(seed), frames=2, objects=2)
        colors = [np.full(3, 20 + 30 * i) for i in range(len(scene.things) + 1)]
        flat = [
            Look(i, np.c_[np.zeros((3, 3)), c].astype(np.float32)) for i, c in enumerate(colors)
        ]
        things = tuple(
            type(t)(t.object_id, t.shape, look, t.maps, t.bend, t.texture_scale)
            for t, look in zip(scene.things, flat[1:], strict=True)
        )
        plain = Scene(flat[0], scene.background_maps, things)
        painter = Painter(plain, size=size, split="train", photographs=False)
        outlines = [outline_mask(thing, 1, size) for thing in plain.things]
        picture = painter.draw(1, outlines)[..., 0]
        top = np.zeros((size, size), int)
        for i, outline in enumerate(outlines):
            top[outline > 0] = i + 1
        edge = cv2.morphologyEx(top.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5))) > 0
        np.testing.assert_array_equal(picture[~edge], (20 + 30 * top)[~edge])


def test_splits_share_no_photograph_and_no_texture() -> None:
    assert not set(textures.PHOTOGRAPHS["train"]) & set(textures.PHOTOGRAPHS["heldout"])
    train, heldout = (
        {textures.texture(n, split, photographs=True).tobytes() for n in range(60)}
        for split in ("train", "heldout")
    )
    assert len(train) == len(heldout) == 60
    assert not train & heldout


def test_without_photographs_scikit_image_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textures.importlib.util, "find_spec", lambda _name: None)
    textures.texture.cache_clear()
    textures._photograph.cache_clear()
    clip(5, frames=1, size=64, photographs=False)
    with pytest.raises(SourceError, match=r"sam2_edge\[synth\]"):
        for seed in range(20):
            clip(seed, frames=1, size=64)


def test_effects_change_brightness_but_keep_the_picture() -> None:
    picture = clip(2, frames=1, size=128).frames[0]
    for seed in range(12):
        degradation = random_degradation(np.random.default_rng(seed), 3, 128)
        out = degrade(picture, degradation, 2)
        assert out.shape == picture.shape
        correlation = np.corrcoef(out.ravel(), picture.ravel())[0, 1]
        assert correlation > 0.5


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"objects": 0}, {"size": 8}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="are needed"):
        clip(1, **wrong)
