"""Points of a profile: other batch sizes and numbers of threads, with budgets of their own."""

from pathlib import Path
from typing import Any

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile

TIGHT = {"latency": 0.3}


def profile(*points: dict[str, Any], parent: str = "local-cpu", **overrides: object) -> HardwareProfile:
    return load_profile(parent, {**overrides, "points": [{"budget": TIGHT, **point} for point in points]})


def test_a_point_takes_from_the_target_what_it_does_not_name() -> None:
    found = profile({"batch": 8}, {"threads": 2, "budget": {"latency_ms": 3, "p99_ms": 5}}, {"batch": 4, "threads": 3}).at_points()
    assert list(found) == ["batch 8", "2 threads", "batch 4 and 3 threads"]
    assert [(point.target.batch, point.target.threads) for point in found.values()] == [(8, 1), (1, 2), (4, 3)]
    assert found["2 threads"].budget.p99_ms == 5
    assert found["2 threads"].name == "local-cpu at 2 threads"
    assert all(not point.points for point in found.values())


def test_a_point_follows_the_precision_and_the_address_of_its_target() -> None:
    away = profile({"batch": 8}, **{"target.device.address": "ssh://pi@kitchen"})
    (point,) = away.model_copy(update={"target": away.target.at("fp32")}).at_points().values()
    assert (point.target.precision, str(point.target.device.address)) == ("fp32", str(away.target.device.address))


def test_the_budgets_of_all_points_are_told_in_one_line() -> None:
    assert profile({"batch": 8}).asked.endswith("; at batch 8 p50 <= 0.3 of the dense network")
    assert load_profile("local-cpu").asked == str(load_profile("local-cpu").budget)


def test_the_largest_batch_is_the_targets_or_a_points() -> None:
    assert profile({"batch": 8}, {"threads": 2}).most_images == 8
    assert profile({"batch": 2}, **{"target.batch": 4}).most_images == 4


def test_a_profile_without_points_is_the_one_it_was_before_there_were_any() -> None:
    """Its artifacts keep their keys."""
    plain = load_profile("local-cpu")
    assert '"points"' not in plain.identity()
    assert "points" not in plain.model_dump(mode="json")
    assert '"points"' in profile({"batch": 8}).identity()


def test_points_of_a_child_replace_those_of_its_parent(tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text("extends: local-cpu\nname: box\npoints:\n  - {batch: 8, budget: {latency: 0.3}}\n")
    (tmp_path / "other.yaml").write_text("extends: box.yaml\nname: other\npoints:\n  - {batch: 2, budget: {latency: 0.4}}\n")
    assert [point.label for point in load_profile(str(tmp_path / "other.yaml")).points] == ["batch 2"]


@pytest.mark.parametrize(
    ("points", "overrides", "told"),
    [
        ([{"batch": 1}], {}, r"A point is at batch 1, threads 1, which is the target itself: `budget` is its budget"),
        ([{}], {}, r"which is the target itself"),
        ([{"batch": 8}, {"batch": 8, "threads": 1}], {}, r"A point is at batch 8, threads 1, and another point is too"),
        ([{"batch": 8, "budget": {"latency": 0.3, "size_mb": 1}}], {}, r"every key but `size_mb`: the engine's file is one for all points"),
        ([{"batch": 8, "budget": {"percentile": 90}}], {}, r"exactly one of `latency`"),
        ([{"batch": 0}], {}, r"greater than or equal to 1"),
        ([{"threads": 2}], {"parent": "rtx-4090"}, r"`batch` alone: `threads` are those of a CPU, and the device is a GPU"),
        (
            [{"batch": 8}],
            {"parent": "rtx-4090", "target.batch": 4},
            r"at most batch 4: tensorrt-rtx builds an engine for up to `target\.batch` images, and the point has 8",
        ),
        ([{"batch": 8}], {"parent": "rtx-4090", "target.runtime": "tensorrt", "target.batch": 1}, r"at most batch 1: tensorrt builds an engine"),
        ([{"batch": 8}], {"target.runtime": "openvino", "target.runtime_version": "'>=2024'"}, r"`threads` alone: openvino compiles an engine for one batch"),
    ],
)
def test_what_is_no_point_is_refused(points: list[dict[str, Any]], overrides: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)--set profile.points: 'points.* is not usable.*allowed: .*{told}"):
        profile(*points, **overrides)


def test_an_engine_of_tensorrt_takes_a_smaller_batch_than_the_one_it_is_built_for() -> None:
    (point,) = profile({"batch": 4}, parent="rtx-4090", **{"target.batch": 8}).at_points().values()
    assert point.target.batch == 4


def test_openvino_and_the_providers_of_onnxruntime_take_what_they_can() -> None:
    assert profile({"threads": 2}, **{"target.runtime": "openvino", "target.runtime_version": "'>=2024'"}).at_points()["2 threads"].target.threads == 2
    assert profile({"batch": 8}, **{"target.provider": "openvino"}).most_images == 8


def test_an_unknown_key_of_a_point_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text("extends: local-cpu\nname: box\npoints:\n  - {batch: 8, thread: 2, budget: {latency: 0.3}}\n")
    with pytest.raises(ConfigError, match=r"(?s)box\.yaml:4: unknown key 'points\.0\.thread' \(did you mean 'threads'\?\).*allowed: batch, budget, threads"):
        load_profile(str(tmp_path / "box.yaml"))
