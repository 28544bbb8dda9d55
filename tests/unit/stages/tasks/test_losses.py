"""Losses with their options, and what a student learns of a teacher."""

import pytest
import torch
from torch.nn import functional

from bonsai.profiles.errors import ConfigError
from bonsai.stages.tasks.loss_config import FORMS, LossConfig
from bonsai.stages.tasks.losses import dice_loss
from bonsai.stages.tasks.registry import TASKS, learning_of, require_loss
from bonsai.stages.tasks.task import DataSpec, Learning
from bonsai.stages.training.config import SoftTargets, TrainConfig

SPEC = DataSpec((3, 4, 4), 3)
SHAPES = {"classification": (6, 3), "multi_label": (6, 3), "regression": (6, 3), "segmentation": (6, 3, 4, 4)}


def learning(task: str, smoothing: float = 0.0, **loss: object) -> Learning:
    return learning_of(task, TrainConfig(loss=LossConfig.model_validate(loss), label_smoothing=smoothing))


def outputs(task: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPES[task], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("task", "form"), [(task, form) for task, forms in FORMS.items() for form in forms])
def test_every_form_falls_where_outputs_follow_their_gradient(task: str, form: str) -> None:
    how, found = learning(task, form=form), outputs(task).requires_grad_()
    targets = how.example_targets(6, SPEC)
    before = how.loss(found, targets)
    before.backward()  # type: ignore[no-untyped-call]
    assert found.grad is not None
    after = how.loss((found - 0.1 * found.grad / found.grad.abs().max()).detach(), targets)
    assert before.ndim == 0
    assert 0 <= float(after) < float(before.detach())


def test_the_usual_losses_are_torchs() -> None:
    classes = torch.arange(6) % 3
    assert learning("classification", 0.1).loss(outputs("classification"), classes) == functional.cross_entropy(
        outputs("classification"), classes, label_smoothing=0.1
    )
    labels = learning("multi_label").example_targets(6, SPEC)
    expected = functional.binary_cross_entropy_with_logits(outputs("multi_label"), labels)
    assert learning("multi_label").loss(outputs("multi_label"), labels) == pytest.approx(float(expected))
    figures = torch.ones(6, 3)
    assert learning("regression").loss(outputs("regression"), figures) == functional.mse_loss(outputs("regression"), figures)
    masks = torch.randint(0, 3, (6, 4, 4), generator=torch.Generator().manual_seed(1))
    expected = functional.cross_entropy(outputs("segmentation"), masks)
    assert float(learning("segmentation").loss(outputs("segmentation"), masks.to(torch.uint8))) == pytest.approx(float(expected))


@pytest.mark.parametrize("form", ["cross_entropy", "focal"])
def test_pixels_of_class_255_do_not_count(form: str) -> None:
    how, found = learning("segmentation", form=form, dice=0.5), outputs("segmentation")
    masks = torch.randint(0, 3, (6, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    masks[:, 2:] = 255
    other = found.clone()
    other[:, :, 2:] += 5 * torch.randn(6, 3, 2, 4, generator=torch.Generator().manual_seed(2))
    assert float(how.loss(found, masks)) == pytest.approx(float(how.loss(other, masks)))
    assert float(how.loss(found, torch.full_like(masks, 255))) == 0


def test_a_focal_loss_without_gamma_is_the_cross_entropy() -> None:
    for task in ("classification", "multi_label", "segmentation"):
        plain, focal = learning(task, weights=(1, 2, 3)), learning(task, form="focal", gamma=0.0, weights=(1, 2, 3))
        targets = plain.example_targets(6, SPEC)
        assert float(focal.loss(outputs(task), targets)) == pytest.approx(float(plain.loss(outputs(task), targets)), rel=1e-5)


def test_a_focal_loss_counts_what_is_right_less() -> None:
    classes, sure = torch.tensor([0]), torch.tensor([[3.0, 0.0, 0.0]])
    probability = float(sure.softmax(1)[0, 0])
    expected = (1 - probability) ** 2 * float(functional.cross_entropy(sure, classes))
    assert float(learning("classification", form="focal").loss(sure, classes)) == pytest.approx(expected)


@pytest.mark.parametrize("task", TASKS)
def test_weights_move_the_loss_and_must_be_as_many_as_outputs(task: str) -> None:
    plain, found = learning(task), outputs(task)
    targets = plain.example_targets(6, SPEC)
    assert float(learning(task, weights=(1, 1, 1)).loss(found, targets)) == pytest.approx(float(plain.loss(found, targets)))
    assert float(learning(task, weights=(9, 1, 1)).loss(found, targets)) != pytest.approx(float(plain.loss(found, targets)))
    with pytest.raises(ConfigError, match=r"training\.loss\.weights do not fit the classes"):
        learning(task, weights=(1, 2)).loss(found, targets)


def test_dice_is_0_for_sure_and_right_masks() -> None:
    masks = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    right = 50.0 * functional.one_hot(masks, 3).movedim(-1, 1)
    assert float(dice_loss(right, masks)) == pytest.approx(0, abs=1e-3)
    assert float(dice_loss(-right, masks)) > 0.4
    whole = learning("segmentation", dice=1.0)
    assert float(whole.loss(right, masks)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_a_student_that_gives_the_teachers_outputs_has_nothing_to_learn(task: str) -> None:
    how, soft = learning(task), SoftTargets(weight=0.5, temperature=2.0)
    teacher, student = outputs(task), outputs(task, seed=1).requires_grad_()
    assert float(how.imitate(teacher, teacher, soft)) == pytest.approx(0, abs=1e-6)
    loss = how.imitate(student, teacher, soft)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    step = 0.1 * student.grad / student.grad.abs().max()
    assert float(how.imitate((student - step).detach(), teacher, soft)) < float(loss.detach())


@pytest.mark.parametrize("task", TASKS)
def test_noise_is_relative_and_0_for_the_same_outputs(task: str) -> None:
    how, found = learning(task), outputs(task)
    assert how.noise(found, found) == 0
    assert 0 < how.noise(found + 0.1 * outputs(task, 1), found) < how.noise(found + outputs(task, 1), found)
    assert how.noise(10 * found + 10 * outputs(task, 1), 10 * found) == pytest.approx(how.noise(found + outputs(task, 1), found), rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_outputs_of_another_shape_are_refused(task: str) -> None:
    how, found = learning(task), outputs(task)
    how.require_outputs(found, SPEC, samples=6, mode="evaluation")
    for wrong in (found[:, :2], found[:5], found.long(), [found]):
        with pytest.raises(ConfigError, match=r"the network (does not give|gives no logits)") as error:
            how.require_outputs(wrong, SPEC, samples=6, mode="training")
        assert "forward()" in str(error.value)


@pytest.mark.parametrize("task", ["classification", "multi_label", "segmentation"])
def test_probabilities_are_refused(task: str) -> None:
    with pytest.raises(ConfigError, match="the network gives probabilities, not logits"):
        learning(task).require_outputs(outputs(task).softmax(1), SPEC, samples=6, mode="evaluation")


@pytest.mark.parametrize(("task", "loss"), [("classification", {"form": "huber"}), ("regression", {"form": "focal"}), ("multi_label", {"dice": 0.5})])
def test_options_that_a_task_does_not_have_are_refused(task: str, loss: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"training\.loss"):
        require_loss(task, TrainConfig(loss=LossConfig.model_validate(loss)))


def test_a_regression_has_no_labels_to_smooth() -> None:
    with pytest.raises(ValueError, match=r"training\.label_smoothing is for classes and labels"):
        require_loss("regression", TrainConfig(label_smoothing=0.1))


@pytest.mark.parametrize("form", FORMS["classification"])
@pytest.mark.parametrize("weights", [(), (1.0, 2.0, 4.0)], ids=["alike", "weighed"])
def test_shares_of_two_classes_are_taken_where_batches_are_mixed(form: str, weights: tuple[float, ...]) -> None:
    how, found, classes = learning("classification", form=form, weights=weights), outputs("classification"), torch.arange(6) % 3
    one_hot = functional.one_hot(classes, 3).float()
    if form == "focal" or not weights:
        torch.testing.assert_close(how.loss(found, one_hot), how.loss(found, classes))
    mixed = how.loss(found, 0.5 * one_hot + 0.5 * one_hot.roll(1, 1))
    assert bool(mixed.isfinite())
    assert float(mixed) > 0
