"""Files and folders appear whole or not at all, and replace others only on demand."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sam2_edge import BundleError, SinkError
from sam2_edge.bundle import storage
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.storage import atomic_file, atomic_folder, new_bundle_folder, sha256_of


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(RuntimeError), atomic_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []

    for content in ("old", "new"):
        with atomic_file(path) as partial:
            assert partial.suffix == ".json"
            partial.write_text(content)
        assert path.read_text() == content
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as first, atomic_file(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"


def test_a_folder_is_staged_elsewhere_and_replaces_the_old_one(tmp_path: Path) -> None:
    staging, target = tmp_path / "staging", tmp_path / "results" / "video"
    staging.mkdir()
    target.mkdir(parents=True)
    (target / "old.png").touch()
    with atomic_folder(target, error=SinkError, staging=staging) as partial:
        (partial / "new.png").touch()
        assert [p.name for p in target.parent.iterdir()] == ["video"]
    assert [p.name for p in target.iterdir()] == ["new.png"]
    assert list(staging.iterdir()) == []


def test_a_folder_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").touch()
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("for a moment there is neither"))
    with atomic_folder(target, error=SinkError) as partial:
        (partial / "new").touch()
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == [
        "bundle",
        "bundle/new",
    ]


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").touch()
    monkeypatch.setattr(storage, "_exchange", lambda *_: False)  # as on other systems
    rename = Path.rename

    def fail_for_the_new_one(path: Path, to: Path) -> Path:
        if path.name.endswith(".part"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(SinkError, match="cannot be made"), atomic_folder(target, error=SinkError):
        pass
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == [
        "bundle",
        "bundle/old",
    ]


def test_a_folder_that_cannot_be_made_is_an_error_of_the_given_kind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SinkError, match="cannot be made"),
        atomic_folder(tmp_path / "file" / "x", error=SinkError),
    ):
        pass


def test_a_bundle_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with pytest.raises(RuntimeError), new_bundle_folder(target) as folder:
        (folder / MANIFEST_FILE).write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []

    with new_bundle_folder(target) as folder:
        (folder / MANIFEST_FILE).write_text("whole")
        assert not target.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_what_exists_is_replaced_only_on_demand_and_only_if_it_is_a_bundle(tmp_path: Path) -> None:
    bundle, other = tmp_path / "bundle", tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with new_bundle_folder(bundle) as folder:
        (folder / MANIFEST_FILE).write_text("old")

    with pytest.raises(BundleError, match="--overwrite"), new_bundle_folder(bundle):
        pass
    with pytest.raises(BundleError, match="not a bundle"), new_bundle_folder(other, overwrite=True):
        pass
    with new_bundle_folder(bundle, overwrite=True) as folder:
        (folder / MANIFEST_FILE).write_text("new")

    assert (bundle / MANIFEST_FILE).read_text() == "new"
    assert (other / "thesis.txt").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "other"]


def test_a_replacement_that_fails_leaves_the_old_bundle(tmp_path: Path) -> None:
    with new_bundle_folder(tmp_path / "bundle") as folder:
        (folder / MANIFEST_FILE).write_text("old")
    with pytest.raises(RuntimeError), new_bundle_folder(tmp_path / "bundle", overwrite=True) as new:
        (new / MANIFEST_FILE).write_text("half")
        raise RuntimeError
    assert (tmp_path / "bundle" / MANIFEST_FILE).read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_or_a_broken_link_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with (
            pytest.raises(BundleError, match="exists"),
            new_bundle_folder(tmp_path / name, overwrite=overwrite),
        ):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]
    assert (tmp_path / "file").read_text() == "precious"


def test_a_bundle_cannot_lie_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(BundleError, match="file"), new_bundle_folder(tmp_path / "file" / "bundle"):
        pass
    assert (tmp_path / "file").read_text() == "precious"


def test_a_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1
