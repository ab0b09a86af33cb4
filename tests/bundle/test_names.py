"""Names of models: the bundled one wins, the published ones are those that PyTorch's side has."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_edge import BundleError, load_bundle
from sam2_edge.bundle import storage
from sam2_edge.bundle.names import BUNDLED, PUBLISHED, did_you_mean, path_from_user, published
from sam2_edge.bundle.storage import check_new_bundle
from sam2_edge.models.families import FAMILIES
from tests.helpers.cli import call


def test_the_published_models_are_those_of_the_families() -> None:
    assert {name: (model.hub_id, model.image_sizes) for name, model in PUBLISHED.items()} == {
        variant.name: (variant.hub_id, family.image_sizes)
        for family in FAMILIES
        for variant in family.variants
    }
    assert published("facebook/sam3") is published("sam3")


@pytest.mark.parametrize("name", ["nano", Path("nano")])
def test_the_bundled_model_wins_over_a_folder_with_its_name(
    name: str | Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_bundle(name).path == BUNDLED["nano"]
    assert caplog.messages == []
    (tmp_path / "nano").mkdir()
    assert load_bundle(name).path == BUNDLED["nano"]
    assert caplog.messages == ["nano is the bundled model; for the folder, give ./nano"]


def test_a_folder_is_meant_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_from_user("./nano") == tmp_path / "nano"
    assert path_from_user("nano") == Path("nano")
    assert path_from_user("./other") == Path("other")
    with pytest.raises(BundleError, match=f"{tmp_path}/nano is not a bundle: it does not exist"):
        call("inspect", "./nano")


@pytest.mark.parametrize("command", ["inspect", "verify", "bench"])
def test_a_bundle_that_is_not_there_names_those_that_are(command: str) -> None:
    with pytest.raises(BundleError) as raised:
        call(command, "nanoo")
    message = str(raised.value)
    assert "nanoo is not a bundle: it does not exist; did you mean nano?" in message
    assert all(name in message for name in (*BUNDLED, *PUBLISHED))


def test_a_model_is_not_a_bundle() -> None:
    with pytest.raises(BundleError, match="sam3 is a model, not a bundle: export it with"):
        load_bundle("sam3")


def test_a_bundle_is_not_written_under_a_bundled_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="nano is the name of a bundled model"):
        check_new_bundle(Path("nano"))
    check_new_bundle(tmp_path / "nano")


def test_a_full_disk_is_noticed_before_a_bundle_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage, "MIN_FREE_BYTES", 2**70)
    with pytest.raises(BundleError, match=r"has \d+ MiB free, and a bundle needs at least"):
        check_new_bundle(tmp_path / "a" / "b")


def test_a_name_unlike_any_other_gets_no_suggestion() -> None:
    assert did_you_mean("sam2.1-hiera-tinny", PUBLISHED) == "; did you mean sam2.1-hiera-tiny?"
    assert did_you_mean("cup", PUBLISHED) == ""
