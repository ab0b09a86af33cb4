"""The output of a batch, in a folder and behind a URL."""

from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import pytest

from sam2_edge.batch.results import BatchOutput, BatchSettings, VideoRecord, write_record
from sam2_edge.errors import SinkError

fsspec = pytest.importorskip("fsspec")

SETTINGS = BatchSettings(
    sam2_edge_version="1", bundle="nano", bundle_sha256="2", outputs=("masks",), backend="cpu"
)
RECORD = VideoRecord(name="day/a", source="a.mp4", status="done", frames=3)


@pytest.fixture(params=["folder", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> BatchOutput:
    url = f"memory://{uuid.uuid4().hex}/out"
    return BatchOutput(str(tmp_path / "out") if request.param == "folder" else url)


def _save(output: BatchOutput, text: str) -> None:
    with output.new_video(RECORD.name) as folder:
        (folder / "masks").mkdir()
        (folder / "masks" / text).write_text(text)
        write_record(folder, RECORD)


def _files(output: BatchOutput) -> set[str]:
    system, root = fsspec.core.url_to_fs(output.path)
    return {path.removeprefix(root) for path in system.find(root)}


def test_a_finished_video_has_a_record(output: BatchOutput) -> None:
    output.prepare(SETTINGS)
    assert output.record(RECORD.name) is None
    _save(output, "0.png")
    assert output.record(RECORD.name) == RECORD
    assert _files(output) == {"/settings.json", "/day/a/masks/0.png", "/day/a/record.json"}


def test_a_video_that_is_done_again_replaces_all_of_the_first(output: BatchOutput) -> None:
    output.prepare(SETTINGS)
    _save(output, "0.png")
    _save(output, "1.png")
    assert _files(output) == {"/settings.json", "/day/a/masks/1.png", "/day/a/record.json"}


def test_a_video_that_is_cut_off_leaves_nothing(output: BatchOutput) -> None:
    output.prepare(SETTINGS)
    with pytest.raises(KeyboardInterrupt), output.new_video("b") as folder:
        write_record(folder, RECORD)
        raise KeyboardInterrupt
    assert output.record("b") is None
    assert _files(output) == {"/settings.json"}


def test_other_settings_and_other_contents_are_refused(output: BatchOutput) -> None:
    output.prepare(SETTINGS)
    output.prepare(SETTINGS)
    with pytest.raises(SinkError, match="contains a batch with bundle nano, this one has tiny"):
        output.prepare(SETTINGS.model_copy(update={"bundle": "tiny"}))
    other = BatchOutput(f"{output.path}/day")
    _save(output, "0.png")
    with pytest.raises(SinkError, match="is not empty and contains no batch"):
        other.prepare(SETTINGS)


def test_workers_get_the_path_alone(output: BatchOutput) -> None:
    assert pickle.loads(pickle.dumps(output)).path == output.path  # noqa: S301 # our own bytes


def test_a_url_of_an_unknown_kind_is_one_error() -> None:
    with pytest.raises(SinkError, match=r"nosuch://x cannot be opened"):
        BatchOutput("nosuch://x")
