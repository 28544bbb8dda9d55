"""How the loss is computed: `training.loss` of a recipe."""

from typing import Annotated, Literal

from pydantic import Field

from bonsai.profiles.located_yaml import Record

Form = Literal["cross_entropy", "focal", "squared", "absolute", "huber"]
FORMS: dict[str, tuple[Form, ...]] = {
    "classification": ("cross_entropy", "focal"),
    "multi_label": ("cross_entropy", "focal"),
    "segmentation": ("cross_entropy", "focal"),
    "regression": ("squared", "absolute", "huber"),
}
"""The forms of each task's loss, its usual one first. A task of your own checks its form itself."""
WITH_DICE = ("segmentation",)


class LossConfig(Record):
    """The form of the loss, and its options.

    Attributes:
        form: ``cross_entropy`` (classification, segmentation; for multi_label binary, one for each label), ``focal`` (Lin et al., arXiv 1708.02002),
            ``squared``, ``absolute`` or ``huber`` (regression). null: the task's usual one, ``cross_entropy`` or ``squared``.
        weights: One positive number for each class, label or figure. For multi_label a number weighs the samples that have the label. Empty: all weigh 1.
        gamma: Exponent of ``focal``: how much less a sample counts that is right already.
        delta: Error beyond which ``huber`` grows linearly, in the unit of the targets.
        dice: Share of the Dice loss, 0-1, in segmentation; the form has the rest.
        auxiliary: Weight of the loss of each auxiliary output, which `model.outputs` does not name, of the shape of the task's output; 0 ignores them.
    """

    form: Form | None = None
    weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    gamma: Annotated[float, Field(ge=0)] = 2.0
    delta: Annotated[float, Field(gt=0)] = 1.0
    dice: Annotated[float, Field(ge=0, le=1)] = 0.0
    auxiliary: Annotated[float, Field(ge=0)] = 0.0

    def form_for(self, task: str) -> Form:
        """Return the form, or the task's usual one.

        Raises:
            ValueError: The task has no such form, or no Dice loss.
        """
        forms = FORMS[task]
        if self.form is not None and self.form not in forms:
            raise ValueError(f"training.loss.form {self.form!r} is none of task {task!r}: choose {' or '.join(forms)}")
        if self.dice and task not in WITH_DICE:
            raise ValueError(f"training.loss.dice is for task {' and '.join(WITH_DICE)} only: remove it")
        return self.form or forms[0]
