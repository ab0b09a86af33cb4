"""Data sets in each published layout are listed, or rejected with one clear error."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from sam2_edge.errors import SourceError
from sam2_edge.evaluation.vos.datasets import LayoutName, open_dataset
from sam2_edge.synthetic import SyntheticClip
from tests.helpers.datasets import LATE, SAV_STEP, cut_short, late_clip, write_layout

SIZE = (64, 64)

LAYOUTS = get_args(LayoutName)


@pytest.fixture(scope="module")
def clips() -> dict[str, SyntheticClip]:
    return {"zebra": late_clip(3, 13), "cup": late_clip(1, 7)}


@pytest.fixture
def data(tmp_path: Path, clips: dict[str, SyntheticClip]) -> Callable[[LayoutName], Path]:
    return lambda layout: write_layout(tmp_path / "data", layout, clips)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_detected_and_its_videos_are_listed(
    layout: LayoutName, data: Callable[[LayoutName], Path]
) -> None:
    root = data(layout)
    opened = open_dataset(root)
    assert opened.layout == layout
    listed = layout in ("davis", "sa-v")  # lists have their own order
    names = ["zebra", "cup"] if listed else ["cup", "zebra"]
    assert [video.name for video in opened.videos] == names
    assert {v.name: len(v.frames) for v in opened.videos} == {"zebra": 13, "cup": 7}
    assert all(v.frames == tuple(sorted(v.frames)) for v in opened.videos)
    assert open_dataset(root, layout=layout).videos == opened.videos


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_belong_to_their_frames_and_objects(
    layout: LayoutName, data: Callable[[LayoutName], Path], clips: dict[str, SyntheticClip]
) -> None:
    videos = {video.name: video for video in open_dataset(data(layout)).videos}
    video, drawn = videos["zebra"], clips["zebra"]
    annotated = {
        "davis": range(13),
        "sa-v": range(0, 13, SAV_STEP),
        "mose": [0],
        "lvos": range(13),
        "youtube-vos": [0, LATE],
    }[layout]
    assert [t for t in range(13) if video.annotated(t)] == list(annotated)
    for t in annotated:
        for object_id, mask in video.read_masks(t, SIZE).items():
            np.testing.assert_array_equal(mask, drawn.mask(t, object_id))
    assert video.read_masks(0, SIZE)[1].any()
    assert video.read_masks(annotated[-1] + 1, SIZE) == {}


def test_a_late_object_of_youtube_vos_is_alone_in_its_file(
    data: Callable[[LayoutName], Path],
) -> None:
    (video,) = open_dataset(data("youtube-vos"), videos=["cup"]).videos
    assert list(video.read_masks(0, SIZE)) == [1]
    assert list(video.read_masks(LATE, SIZE)) == [2]


def test_objects_of_sa_v_are_named_after_their_folders(data: Callable[[LayoutName], Path]) -> None:
    (video,) = open_dataset(data("sa-v"), videos=["zebra"]).videos
    assert video.per_object
    assert [video.object_name(i) for i in (1, 2)] == ["000", "001"]
    masks = video.read_masks(0, SIZE)
    assert masks.keys() == {1, 2}
    assert not masks[2].any()  # it has a file, which does not show it


def test_the_scored_range_of_lvos_comes_from_its_meta_file(
    data: Callable[[LayoutName], Path],
) -> None:
    (video,) = open_dataset(data("lvos"), videos=["cup"]).videos
    assert video.ranges == {1: (1, 21), 2: (11, 31)}
    assert video.frames[0].stem == "00000001"


def test_lvos_without_its_meta_file_needs_a_layout(data: Callable[[LayoutName], Path]) -> None:
    root = data("lvos")
    (root / "val_meta.json").unlink()
    assert open_dataset(root).layout == "mose"
    opened = open_dataset(root, layout="lvos")
    assert [video.ranges for video in opened.videos] == [{}, {}]


def test_the_split_within_a_data_set_is_found(data: Callable[[LayoutName], Path]) -> None:
    root = data("youtube-vos")
    assert open_dataset(root).root == root / "valid"
    assert open_dataset(root / "valid").videos == open_dataset(root).videos


def test_videos_are_chosen_by_name_in_the_order_of_the_list(
    data: Callable[[LayoutName], Path],
) -> None:
    root = data("davis")
    both = open_dataset(root, videos=["cup", "zebra", "cup"]).videos
    assert [v.name for v in both] == ["zebra", "cup"]
    (root / "ImageSets/2017/val.txt").write_text("zebra\n")
    assert [v.name for v in open_dataset(root).videos] == ["zebra"]
    assert [v.name for v in open_dataset(root, videos=["cup"]).videos] == ["cup"]


def test_the_void_label_is_not_an_object(data: Callable[[LayoutName], Path]) -> None:
    root = data("davis")
    indexed = np.zeros((64, 64), np.uint8)
    indexed[:8], indexed[8:16] = 1, 255
    Image.fromarray(indexed).save(root / "Annotations/480p/cup/00000.png")
    (video,) = open_dataset(root, videos=["cup"]).videos
    assert list(video.read_masks(0, SIZE)) == [1]


def _remove(path: str) -> Callable[[Path], None]:
    return lambda root: (
        shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()
    )


def _write(path: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text(text)


BROKEN: dict[str, tuple[LayoutName, Callable[[Path], None], str]] = {
    "no frames at all": ("mose", _remove("JPEGImages"), "contains neither JPEGImages nor"),
    "no masks at all": ("mose", _remove("Annotations"), "Annotations does not exist, but"),
    "no videos": (
        "mose",
        lambda root: [shutil.rmtree(p) for p in (root / "JPEGImages").iterdir()] and None,
        "JPEGImages contains no videos",
    ),
    "no masks of a video": (
        "davis",
        _remove("Annotations/480p/cup"),
        "video 'cup' has no masks; copy it again",
    ),
    "an empty folder of masks": ("mose", _remove("Annotations/cup/00000.png"), "contains no PNG"),
    "an empty folder of frames": (
        "mose",
        lambda root: [p.unlink() for p in (root / "JPEGImages/cup").iterdir()] and None,
        "cup contains no images",
    ),
    "a frame that is missing": (
        "lvos",
        _remove("JPEGImages/cup/00000011.jpg"),
        "00000011.png has no frame of the same name",
    ),
    "a mask that is missing": (
        "davis",
        _remove("Annotations/480p/cup/00003.png"),
        "00003.jpg has no mask in",
    ),
    "a video of the list that is missing": (
        "sa-v",
        _write("sav_val.txt", "cup\nmug\n"),
        "video 'mug' has no folder in",
    ),
    "a name that leaves the data set": (
        "youtube-vos",
        _write("valid/meta.json", json.dumps({"videos": {"../JPEGImages": {}}})),
        "video '../JPEGImages' has no folder in",
    ),
    "a damaged meta file": (
        "lvos",
        _write("val_meta.json", "{"),
        "val_meta.json is not a list of videos",
    ),
    "no folder of an object": (
        "sa-v",
        lambda root: [shutil.rmtree(p) for p in (root / "Annotations_6fps/cup").iterdir()] and None,
        "cup contains no object folders",
    ),
}


@pytest.mark.parametrize(("layout", "damage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_damaged_data_set_is_rejected(
    layout: LayoutName,
    damage: Callable[[Path], None],
    message: str,
    data: Callable[[LayoutName], Path],
) -> None:
    root = data(layout)
    damage(root)
    with pytest.raises(SourceError, match=message):
        open_dataset(root)


@pytest.mark.parametrize("damage", ["text", "cut", "color", "sixteen bits"])
def test_a_damaged_mask_is_rejected(damage: str, data: Callable[[LayoutName], Path]) -> None:
    root = data("mose")
    path = root / "Annotations/cup/00000.png"
    if damage == "text":
        path.write_text("mask")
    elif damage == "cut":
        cut_short(path)
    elif damage == "color":
        Image.fromarray(np.full((64, 64, 3), (1, 2, 3), np.uint8)).save(path)
    else:
        Image.fromarray(np.full((64, 64), 300, np.uint16)).save(path)
    (video,) = open_dataset(root, videos=["cup"]).videos
    with pytest.raises(
        SourceError, match="00000.png .*; ((remove or )?repair it|give an indexed mask|give ids)"
    ):
        video.read_masks(0, SIZE)


def test_a_folder_without_a_data_set_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not a folder"):
        open_dataset(tmp_path / "none")
    with pytest.raises(SourceError, match="davis, sa-v, mose, lvos, youtube-vos"):
        open_dataset(tmp_path)


def test_a_layout_that_the_folders_lack_is_rejected(data: Callable[[LayoutName], Path]) -> None:
    with pytest.raises(SourceError, match="JPEGImages_24fps does not exist, but the layout sa-v"):
        open_dataset(data("mose"), layout="sa-v")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_windows_editors_are_read(
    encoding: str, data: Callable[[LayoutName], Path]
) -> None:
    davis, lvos = data("davis"), data("lvos")
    (listed,) = davis.glob("ImageSets/2017/*.txt")
    names = listed.read_text().split()
    listed.write_bytes("\r\n".join([*names, "", ""]).encode(encoding))
    assert [video.name for video in open_dataset(davis).videos] == names
    (meta,) = lvos.glob("*meta*.json")
    before = open_dataset(lvos)
    meta.write_bytes(meta.read_text().replace("\n", "\r\n").encode(encoding))
    assert open_dataset(lvos) == before


def test_masks_with_suffixes_in_upper_case_are_found(data: Callable[[LayoutName], Path]) -> None:
    root = data("mose")
    before = open_dataset(root, videos=["cup"]).videos[0].masks[""].keys()
    for path in (root / "Annotations/cup").iterdir():
        path.rename(path.with_suffix(".PNG"))
    (root / "Annotations/cup/._00000.png").write_bytes(b"Mac OS X")
    (video,) = open_dataset(root, videos=["cup"]).videos
    assert video.masks[""].keys() == before
    assert video.read_masks(0, SIZE)[1].any()


@pytest.mark.parametrize(("values", "objects"), [((0, 255), [1]), ((0, 7, 255), [7])])
def test_255_is_void_beside_objects_and_otherwise_the_object(
    values: tuple[int, ...], objects: list[int], data: Callable[[LayoutName], Path]
) -> None:
    root = data("davis")
    folder = root / "Annotations/480p/cup"
    first, *others = sorted(folder.iterdir())
    for path in (first, *others):
        shown = values if path == first else (0, 255)  # later the object may be gone
        pixels = np.zeros((64, 64), np.uint8)
        for index, value in enumerate(shown):
            pixels[index * 9 : index * 9 + 9] = value
        Image.fromarray(pixels).save(path)
    (video,) = open_dataset(root, videos=["cup"]).videos
    assert list(video.read_masks(0, SIZE)) == objects
    assert list(video.read_masks(1, SIZE)) == (objects if values == (0, 255) else [])


def test_a_video_whose_name_is_not_utf_8_is_rejected(data: Callable[[LayoutName], Path]) -> None:
    root = data("mose")
    name = os.fsdecode(b"caf\xe9")
    for folder in ("JPEGImages", "Annotations"):
        (root / folder / "cup").rename(root / folder / name)
    with pytest.raises(SourceError, match=r"caf\\xe9 has a name that is not UTF-8; rename it"):
        open_dataset(root)
