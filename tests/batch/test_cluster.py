"""A batch on a Ray cluster of two nodes, of which workers and one node are lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sam2_edge import Bundle
from sam2_edge.batch.cluster import ATTEMPTS, Cluster, ClusterOptions
from sam2_edge.batch.processes import Processes
from sam2_edge.batch.results import BatchOutput, BatchSettings
from sam2_edge.batch.tasks import VideoTask, find_tasks
from sam2_edge.batch.tracking import TrackVideos
from sam2_edge.errors import BackendError
from tests.helpers.batch import masks_of, write_list
from tests.helpers.cli import call
from tests.helpers.datasets import late_clip, write_layout

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
]

VIDEOS = 6


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with a core each, to which this process is connected."""
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@dataclass(frozen=True)
class Marked:
    """Runs `TrackVideos`, and notes in `folder` which process begins which video."""

    work: TrackVideos
    folder: Path
    fatal: str = ""

    def open(
        self, threads: int | None, stopped: Callable[[], bool], advance: Callable[[], None]
    ) -> Callable[[VideoTask], Any]:
        track = self.work.open(threads, stopped, advance)

        def handle(task: VideoTask) -> Any:
            (self.folder / f"{task.name}-{os.getpid()}").touch()
            if task.name == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.5)  # long enough to be killed in its middle
            return track(task)

        return handle

    def lost(self, task: VideoTask, reason: str) -> Any:
        return self.work.lost(task, reason)

    def begun(self) -> dict[str, int]:
        """Process of every video that has begun, the latest of each."""
        files = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return {name: int(number) for name, number in (file.name.split("-") for file in files)}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[VideoTask]:
    return find_tasks([write_list(tmp_path_factory.mktemp("clips"), VIDEOS)])


@pytest.fixture
def make_work(small_bundle: Bundle, tmp_path: Path) -> Callable[..., Marked]:
    def make(name: str, fatal: str = "") -> Marked:
        settings = BatchSettings(
            sam2_edge_version="0",
            bundle="small",
            bundle_sha256="0",
            outputs=("masks", "coco"),
            backend="cpu",
        )
        output = BatchOutput(str(tmp_path / name))
        output.prepare(settings)
        notes = tmp_path / f"{name}-notes"
        notes.mkdir()
        return Marked(TrackVideos(small_bundle, settings, output), notes, fatal)

    return make


def test_killed_workers_and_a_removed_node_cost_nothing(
    nodes: Any, tasks: list[VideoTask], make_work: Callable[..., Marked], tmp_path: Path
) -> None:
    assert len(list(Processes(make_work("local"), 1).run(tasks))) == VIDEOS

    work = make_work("cluster")
    records = Cluster(work, ClusterOptions(nodes.address)).run(tasks)
    done = [next(records)]
    busy = set(work.begun()) - {record.name for record in done}
    os.kill(work.begun()[busy.pop()], signal.SIGKILL)
    done.append(next(records))
    extra = nodes.add_node(num_cpus=1)
    nodes.remove_node(extra)
    nodes.remove_node(nodes.worker_nodes.copy().pop())
    done += records

    assert sorted(record.name for record in done) == [task.name for task in tasks]
    assert {record.status for record in done} == {"done"}
    assert masks_of(tmp_path / "cluster") == masks_of(tmp_path / "local") != {}
    assert len(list(work.folder.iterdir())) > VIDEOS  # some began twice


def test_a_video_that_kills_every_worker_is_recorded(
    nodes: Any, tasks: list[VideoTask], make_work: Callable[..., Marked]
) -> None:
    work = make_work("fatal", fatal="v1")
    records = {r.name: r for r in Cluster(work, ClusterOptions(nodes.address)).run(tasks[:3])}
    assert [records[f"v{n}"].status for n in range(3)] == ["done", "failed", "done"]
    assert records["v1"].error == f"its worker died {ATTEMPTS} times"
    assert work.work.output.record("v1") == records["v1"]


def test_eval_scores_the_same_on_a_cluster(
    nodes: Any, small_bundle: Bundle, tmp_path: Path
) -> None:
    clips = {"cup": late_clip(1, 5), "zebra": late_clip(3, 6)}
    data = write_layout(tmp_path / "davis", "davis", clips)
    here, there = tmp_path / "here", tmp_path / "there"
    assert call("eval", data, small_bundle.path, "--output", here, "--threads", 1) == 0
    assert call("eval", data, small_bundle.path, "--output", there, "--ray", nodes.address) == 0
    assert (there / "results.csv").read_text() == (here / "results.csv").read_text()


def test_an_unreachable_cluster_is_one_error(
    make_work: Callable[..., Marked], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(BackendError, match=r"cluster head:1 cannot be reached \(nobody listens\)"):
        Cluster(make_work("nowhere"), ClusterOptions("head:1"))
