"""Metrics in NumPy are those of torchmetrics; what tasks refuse is said plainly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchmetrics.functional import mean_absolute_error, mean_squared_error, r2_score
from torchmetrics.functional.classification import binary_average_precision, multiclass_jaccard_index, multilabel_average_precision

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data import pixels
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.tasks.multi_label.judging import LABELLED, MULTI_LABEL, SCORE, average_precision
from bonsai.stages.tasks.pictures import painted
from bonsai.stages.tasks.registry import TASKS, task_named
from bonsai.stages.tasks.regression.judging import REGRESSION
from bonsai.stages.tasks.segmentation.judging import IGNORED, INTERSECTION, SEGMENTATION, UNION
from bonsai.stages.tasks.task import DataSpec, Statistics, Task, join

RNG = np.random.default_rng
SPEC = DataSpec((3, 6, 5), 3)
NAMES = ("a", "b", "c")


def scores(seed: int, *, n: int = 60, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(seed)
    labelled = (rng.random((n, 3)) < (0.5, 0.2, 0.08)).astype(np.float32)
    found = (labelled + rng.normal(0, 1, labelled.shape)).astype(np.float32)
    return (found.round(0) if ties else found), labelled


def masks(seed: int, *, n: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(seed)
    targets = rng.choice([0, 1, 2, IGNORED], (n, 6, 5), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
    return rng.normal(0, 1, (n, 3, 6, 5)).astype(np.float32), targets


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_map_is_that_of_torchmetrics(seed: int, ties: bool) -> None:
    found, labelled = scores(seed, ties=ties)
    expected = multilabel_average_precision(torch.from_numpy(found).sigmoid(), torch.from_numpy(labelled).long(), 3, average="none")
    assert expected is not None
    statistics = MULTI_LABEL.per_sample(found, labelled)
    by_label = [average_precision(found[:, label], labelled[:, label])[0] for label in range(3)]
    assert by_label == pytest.approx(expected.tolist(), abs=1e-6)
    assert MULTI_LABEL.reduce(statistics) == pytest.approx(float(expected.mean()), abs=1e-6)


def test_map_of_edge_cases_is_that_of_torchmetrics() -> None:
    for found, labelled in (
        (np.zeros((8, 1), np.float32), np.array([[1], [0]] * 4, np.float32)),  # all scores alike
        (np.arange(8, dtype=np.float32)[:, None], np.ones((8, 1), np.float32)),  # every sample has the label
        (-np.arange(8, dtype=np.float32)[:, None], np.eye(8, 1, dtype=np.float32)),  # one has it, and is ranked first
        (np.arange(8, dtype=np.float32)[:, None], np.eye(8, 1, dtype=np.float32)),  # and last
    ):
        expected = binary_average_precision(torch.from_numpy(found[:, 0]).sigmoid(), torch.from_numpy(labelled[:, 0]).long())
        assert average_precision(found[:, 0], labelled[:, 0])[0] == pytest.approx(float(expected), abs=1e-6)


def test_labels_that_no_sample_has_do_not_count() -> None:
    found, labelled = scores(0)
    without = labelled * np.array([1, 1, 0], np.float32)
    assert MULTI_LABEL.reduce(MULTI_LABEL.per_sample(found, without)) == MULTI_LABEL.reduce(MULTI_LABEL.per_sample(found[:, :2], labelled[:, :2]))
    with pytest.raises(ConfigError, match="no sample of a part of the data has a label"):
        MULTI_LABEL.reduce(MULTI_LABEL.per_sample(found, 0 * labelled))


@pytest.mark.parametrize("ties", [False, True])
def test_the_influence_of_a_sample_on_average_precision_is_its_derivative(ties: bool) -> None:
    found, labelled = (columns[:, 1] for columns in scores(3, n=25, ties=ties))
    average, influence = average_precision(found, labelled)

    def weighted(weights: np.ndarray) -> float:
        has = labelled > 0
        shares = [weights[has & (found >= score)].sum() / weights[found >= score].sum() for score in found[has]]
        return float((weights[has] * shares).sum() / weights[has].sum())

    step = 1e-6
    derivatives = [(weighted(1 + step * np.eye(25)[place]) - weighted(1 - step * np.eye(25)[place])) / (2 * step) for place in range(25)]
    assert weighted(np.ones(25)) == pytest.approx(average)
    assert influence / 25 == pytest.approx(np.array(derivatives), abs=1e-7)
    assert influence.sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_rmse_is_that_of_torchmetrics(seed: int) -> None:
    rng = RNG(seed)
    target = rng.normal(5, 3, (40, 2)).astype(np.float32)
    found = target + rng.normal(0, 1, target.shape).astype(np.float32)
    expected = mean_squared_error(torch.from_numpy(found).flatten(), torch.from_numpy(target).flatten(), squared=False)
    assert REGRESSION.reduce(REGRESSION.per_sample(found, target)) == pytest.approx(float(expected), rel=1e-5)
    (table,) = REGRESSION.tables(REGRESSION.per_sample(found, target), ("x", "y"))
    for row, one, wanted in zip(table.rows, torch.from_numpy(found).T, torch.from_numpy(target).T, strict=True):
        shown = [float(mean_squared_error(one, wanted, squared=False)), float(mean_absolute_error(one, wanted)), float(r2_score(one, wanted))]
        assert [float(cell) for cell in row[1:4]] == pytest.approx(shown, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_miou_is_that_of_torchmetrics(seed: int) -> None:
    found, targets = masks(seed)
    answers, wanted = torch.from_numpy(found.argmax(1)), torch.from_numpy(targets.astype(np.int64))
    expected = multiclass_jaccard_index(answers, wanted, 3, average="macro", ignore_index=IGNORED)
    assert SEGMENTATION.reduce(SEGMENTATION.per_sample(found, targets)) == pytest.approx(float(expected), abs=1e-6)


def test_miou_leaves_out_classes_that_are_in_no_mask() -> None:
    found, targets = masks(0)
    found[:, 2] = -100.0
    targets = np.where(targets == 2, IGNORED, targets)
    answers, wanted = torch.from_numpy(found.argmax(1)), torch.from_numpy(targets.astype(np.int64))
    expected = multiclass_jaccard_index(answers, wanted, 3, average="macro", ignore_index=IGNORED)
    assert SEGMENTATION.reduce(SEGMENTATION.per_sample(found, targets)) == pytest.approx(float(expected), abs=1e-6)


def test_the_influence_of_an_image_on_miou_is_its_derivative() -> None:
    statistics = SEGMENTATION.per_sample(*masks(1, n=6))
    half = SEGMENTATION.bounds(statistics)

    def weighted(weights: np.ndarray) -> float:
        return float(((weights @ statistics[INTERSECTION]) / (weights @ statistics[UNION])).mean())

    step = 1e-6
    derivatives = np.array([(weighted(1 + step * np.eye(6)[place]) - weighted(1 - step * np.eye(6)[place])) / (2 * step) for place in range(6)])
    from bonsai.stages.tasks.segmentation.judging import _influence

    assert _influence(statistics) / 6 == pytest.approx(derivatives, abs=1e-8)
    assert half.low < half.found < half.high


def pair(task: str) -> tuple[Statistics, Statistics]:
    rng = RNG(0)
    if task == "regression":
        target = rng.normal(0, 1, (30, 2))
        return tuple(REGRESSION.per_sample(target + rng.normal(0, size, target.shape), target) for size in (0.2, 0.5))  # type: ignore[return-value]
    if task == "multi_label":
        found, labelled = scores(0)
        return MULTI_LABEL.per_sample(found + labelled, labelled), MULTI_LABEL.per_sample(found, labelled)
    if task == "segmentation":
        found, targets = masks(0, n=12)
        right = np.stack([targets == place for place in range(3)], 1)
        return SEGMENTATION.per_sample(found + 2 * right, targets), SEGMENTATION.per_sample(found + right, targets)
    labels = rng.integers(0, 3, 30)
    logits = np.eye(3, dtype=np.float32)[labels]
    return tuple(CLASSIFICATION.per_sample(logits + rng.normal(0, size, logits.shape), labels) for size in (0.2, 0.5))  # type: ignore[return-value]


@pytest.mark.parametrize("name", TASKS)
def test_intervals_hold_their_figures_and_what_never_differs_has_a_width(name: str) -> None:
    task, (before, after) = task_named(name), pair(name)
    drop = task.interval(before, after)
    assert drop.found == pytest.approx(task.metric.drop(task.reduce(before), task.reduce(after)))
    for found in (drop, task.interval(before, before), task.bounds(after)):
        assert found.low < found.found < found.high
    assert task.interval(before, before).found == 0
    assert task.interval(before, after, 10 * len(next(iter(before.values())))).high < drop.high


def perfect_masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    _, targets = masks(seed, n=40)
    return (targets[:, None] == np.arange(3)[:, None, None]).astype(np.float32), targets


@pytest.mark.parametrize(
    ("judge", "results"),
    [
        (CLASSIFICATION, lambda: (np.eye(3, dtype=np.float32)[RNG(0).integers(0, 3, 40)], np.zeros(40, np.int64))),
        (MULTI_LABEL, lambda: scores(2, n=40)),
        (SEGMENTATION, lambda: perfect_masks(3)),
    ],
    ids=["classification", "multi_label", "segmentation"],
)
def test_what_can_be_proven_is_the_end_of_the_interval_where_nothing_differs(judge: Task, results: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
    found, targets = results()
    statistics = judge.per_sample(found, targets)
    provable = judge.provable(targets, len(targets))
    assert provable is not None
    assert provable.drop == pytest.approx(judge.interval(statistics, statistics).high)
    samples = judge.samples_to_prove(0.02, targets)
    assert samples is not None
    assert [judge.provable(targets, number).drop <= 0.02 for number in (samples, samples - 1)] == [True, False]  # type: ignore[union-attr]
    assert judge.provable(targets, len(targets), 0.05).drop > provable.drop  # type: ignore[union-attr]


def test_the_best_provable_miou_is_the_lower_end_of_a_perfect_one() -> None:
    found, targets = perfect_masks(3)
    provable = SEGMENTATION.provable(targets, len(targets))
    assert provable.metric == pytest.approx(SEGMENTATION.bounds(SEGMENTATION.per_sample(found, targets)).low)
    assert provable.assumed.startswith("if the dense network's mIoU is near 1")


def test_rare_labels_and_classes_need_more_samples() -> None:
    common, rare = (np.repeat([[1], [0]], [count, 400 - count], axis=0) for count in (200, 8))
    assert MULTI_LABEL.samples_to_prove(0.02, np.hstack([common, rare])) > 2 * MULTI_LABEL.samples_to_prove(0.02, np.hstack([common, common]))
    everywhere, seldom = np.zeros((40, 4, 4), np.uint8), np.zeros((40, 4, 4), np.uint8)
    everywhere[:, 0], seldom[:2, 0] = 1, 1
    assert SEGMENTATION.samples_to_prove(0.02, seldom) > 2 * SEGMENTATION.samples_to_prove(0.02, everywhere) == 2 * 191


def test_what_figures_can_prove_is_not_known_beforehand() -> None:
    targets = np.zeros((40, 1), np.float32)
    assert (REGRESSION.provable(targets, 40), REGRESSION.samples_to_prove(0.02, targets)) == (None, None)


@pytest.mark.parametrize("name", TASKS)
def test_results_in_a_package_are_read_as_they_were(name: str) -> None:
    task, (before, after) = task_named(name), pair(name)
    for dense in (before, None):
        found = task.from_tensors(task.to_tensors(dense, after))
        assert (found[0] is None) == (dense is None)
        assert task.reduce(found[1]) == task.reduce(after)
        assert dense is None or task.reduce(found[0] or {}) == task.reduce(dense)
    tensors = task.to_tensors(before, after)
    for wrong in ({}, {name: array for name, array in tensors.items() if "engine" not in name}, {**tensors, "more": np.zeros(3)}):
        if wrong or name != "classification":
            with pytest.raises(ValueError, match="engine"):
                task.from_tensors(wrong if name != "classification" else {})


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_judged_as_their_sum(name: str) -> None:
    task, (before, _) = task_named(name), pair(name)
    parts = [{key: array[places] for key, array in before.items()} for places in (slice(0, 5), slice(5, None))]
    assert task.reduce(join(parts)) == task.reduce(before)


@pytest.mark.parametrize("name", TASKS)
def test_tables_have_a_row_for_each_class(name: str) -> None:
    task, (before, _) = task_named(name), pair(name)
    classes = ("x", "y") if name == "regression" else NAMES
    for table in task.tables(before, classes):
        assert [row[0] for row in table.rows] == list(classes)
        assert all(len(row) == len(table.headers) for row in table.rows)


def test_the_table_of_a_classification_tells_what_was_confused() -> None:
    labels, answers = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1, 2])
    by_class, confusion = CLASSIFICATION.tables(CLASSIFICATION.per_sample(np.eye(3)[answers], labels), NAMES)
    assert by_class.rows[0] == ("a", "3", "33.3 %", "100.0 %", "b (2)")
    assert by_class.rows[1] == ("b", "2", "100.0 %", "50.0 %", "-")
    assert confusion.rows[0] == ("a", "1", "2", "0")


def test_pictures_of_masks_are_small_pngs() -> None:
    found, targets = masks(0, n=2)
    pictures = SEGMENTATION.pictures(RNG(0).normal(0, 1, (2, 3, 6, 5)).astype(np.float32), found, targets)
    assert [(one.width, one.height) for one in pictures] == [(15, 6), (15, 6)]
    assert "mask" in pictures[0].title
    large = SEGMENTATION.pictures(np.zeros((1, 1, 300, 200), np.float32), np.zeros((1, 3, 300, 200), np.float32), np.zeros((1, 300, 200), np.uint8))
    assert max(large[0].height, large[0].width // 3) <= 64


def test_the_table_of_a_segmentation_names_the_colours_of_its_pictures() -> None:
    mask = np.arange(12).repeat(12).reshape(1, 12, 12)
    names = tuple("abcdefghijkl")
    found = np.eye(12, dtype=np.float32)[mask].transpose(0, 3, 1, 2)
    (table,) = SEGMENTATION.tables(SEGMENTATION.per_sample(found, mask), names)
    assert [row[:2] for row in table.rows[:3]] == [("a", "grey"), ("b", "orange"), ("c", "blue")]
    assert [row[1] for row in table.rows[1:4]] == [row[1] for row in table.rows[9:]]
    shown = painted(np.full((12, 12, 3), (200, 10, 90), np.uint8), mask[0], 255)
    assert (shown[0] == 100).all()
    assert [int(shown[row, 0].argmax()) for row in (1, 2, 3)] == [0, 2, 1]
    assert (shown[1] == shown[9]).all()


def test_pixels_that_do_not_count_stay_grey() -> None:
    assert (painted(np.full((1, 1, 3), (200, 10, 90), np.uint8), np.array([[255]]), 255) == 100).all()


REFUSED = {
    "classification": {
        "floats": (np.zeros(4, np.float32), "labels are no whole numbers", "task: regression"),
        "masks": (np.zeros((4, 6, 5), np.int64), "labels are masks", "task: segmentation"),
        "rows": (np.zeros((4, 3), np.int64), "several labels for each image", "task: multi_label"),
        "beyond": (np.array([0, 3]), "labels name classes that are not there", "name every class"),
    },
    "multi_label": {
        "classes": (np.array([0, 1, 2]), "not one column for each label", "task classification"),
        "too few columns": (np.zeros((4, 2), np.float32), "not one column for each label", "a column for each name"),
        "unknown": (np.array([[0, 1, np.nan]]), "labels are neither 0 nor 1", "leave out the samples"),
        "counts": (np.array([[0, 1, 2]]), "labels are neither 0 nor 1", "write 1"),
        "texts": (np.array([["0", "1", "1"]]), "labels are neither 0 nor 1", "write 1"),
    },
    "regression": {
        "a row": (np.zeros(4, np.float32), "not one column for each figure", "targets[:, None]"),
        "infinite": (np.array([[0, 1, np.inf]]), "NaN, infinite, or too large", "leave out"),
        "beyond float32": (np.array([[0, 1, 1e300]]), "NaN, infinite, or too large", "another unit"),
        "truth values": (np.zeros((4, 3), bool), "targets are no numbers", "targets.float()"),
    },
    "segmentation": {
        "classes": (np.array([0, 1, 2]), "no masks of the images' size", "a mask of its image's size"),
        "another size": (np.zeros((4, 3, 3), np.uint8), "no masks of the images' size", "(n, 6, 5)"),
        "floats": (np.zeros((4, 6, 5), np.float32), "masks are no whole numbers", "masks.long()"),
        "beyond": (np.full((4, 6, 5), 3), "masks name classes that are not there", "background too"),
        "negative": (np.full((4, 6, 5), -1), "masks name classes that are not there", "255"),
    },
}


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in REFUSED.items() for case in cases])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_targets_of_another_kind_are_refused_with_what_to_change(name: str, case: str) -> None:
    targets, problem, fix = REFUSED[name][case]
    with pytest.raises(ConfigError, match=problem.replace("(", r"\(")) as error:
        task_named(name).check_targets(targets, SPEC, NAMES)
    assert fix in str(error.value)


def test_targets_are_returned_in_the_tasks_own_type() -> None:
    for name, targets, dtype in (
        ("classification", np.array([0, 2]), "int64"),
        ("multi_label", np.array([[True, False, True]]), "float32"),
        ("regression", np.array([[1, 2, 3]]), "float32"),
        ("segmentation", np.full((1, 6, 5), IGNORED), "uint8"),
    ):
        found = task_named(name).check_targets(targets, SPEC, NAMES)
        assert (found.dtype.name, found.shape) == (dtype, targets.shape)


def test_a_split_of_labels_keeps_the_shares_of_the_rarest() -> None:
    labelled = np.zeros((100, 3), np.float32)
    labelled[:, 0], labelled[:40, 1], labelled[:4, 2] = 1, 1, 1
    strata = MULTI_LABEL.strata(labelled)
    assert strata is None  # four samples of the rarest label are too few, and nothing joins them
    labelled[:15, 2] = 1
    strata = MULTI_LABEL.strata(labelled)
    assert strata is not None
    assert np.unique(strata, return_counts=True)[1].tolist() == [60, 25, 15]
    assert strata.min() >= 3
    assert SEGMENTATION.strata(np.zeros((4, 6, 5))) is None
    assert REGRESSION.strata(np.zeros((4, 1))) is None


def test_baselines_say_what_nothing_learnt_reaches() -> None:
    assert MULTI_LABEL.baseline(np.array([[1, 0], [1, 1], [0, 0], [0, 0]], np.float32)).value == pytest.approx(0.375)
    assert REGRESSION.baseline(np.array([[-1.0], [1.0]])).value == 1
    halves = np.array([[[0, 0, 0, 1]]], np.uint8)
    assert SEGMENTATION.baseline(halves).value == pytest.approx(0.75 / 2)


def test_weights_let_rare_classes_count_more() -> None:
    assert CLASSIFICATION.class_weights(np.array([0, 0, 0, 1]), 2) == pytest.approx((2 / 3, 2))
    assert MULTI_LABEL.class_weights(np.array([[1, 0], [1, 0], [1, 0], [1, 1]], np.float32), 2) == pytest.approx((0.5, 3**0.5))
    assert SEGMENTATION.class_weights(np.array([[[0, 0, 0, 1, IGNORED]]], np.uint8), 2) == pytest.approx(((2 / 3) ** 0.5, 2**0.5))
    assert REGRESSION.class_weights(np.array([[-1.0, -10.0], [1.0, 10.0]]), 2) == pytest.approx((1, 0.01))


def test_statistics_keep_the_names_that_packages_have() -> None:
    assert {name: set(pair(name)[0]) for name in TASKS} == {
        "classification": {"label", "answer"},
        "multi_label": {SCORE, LABELLED},
        "regression": {"target", "answer"},
        "segmentation": {INTERSECTION, UNION},
    }


def test_what_masks_are_read_with_does_not_count() -> None:
    assert pixels.IGNORED == IGNORED
