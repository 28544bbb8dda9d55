"""Stores figures under the name of their metric: `validation_top1`, not `validation`.

So a manifest or a log says itself which figure it has, and the keys in existing packages stay valid.
"""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from bonsai.profiles.located_yaml import Record

METRIC = "metric"
"""Field of a record that names its metric."""


class FigureRecord(Record):
    """A record whose figures are stored under the metric's name.

    Attributes:
        FORMS: By field, the form of its key, such as ``validation_{}``.
        metric: Name of the task's metric.
    """

    FORMS: ClassVar[Mapping[str, str]]

    metric: str

    @model_validator(mode="before")
    @classmethod
    def _read(cls, facts: Any) -> Any:
        return _read_figures(facts, cls.FORMS, cls.model_fields)

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _write_figures(handler(self), self.FORMS)


def _read_figures(facts: Any, forms: Mapping[str, str], others: Collection[str]) -> Any:
    """Return what a record was stored as in terms of its fields.

    Args:
        facts: What is to be read; returned as it is where it is no mapping, or names its metric as a field.
        forms: By field, the form of its key, such as ``validation_{}``.
        others: The record's other fields.
    """
    if not isinstance(facts, Mapping) or METRIC in facts:
        return facts
    found: dict[str, Any] = {}
    for key, value in facts.items():
        field, metric = _field_of(key, forms) if key not in others else (key, None)
        if metric is not None and found.setdefault(METRIC, metric) != metric:
            field = key  # of another metric: the record refuses it
        found[field] = value
    return found


def _write_figures(plain: Mapping[str, Any], forms: Mapping[str, str]) -> dict[str, Any]:
    """Return a record's fields as they are stored."""
    return {forms[field].format(plain[METRIC]) if field in forms else field: value for field, value in plain.items() if field != METRIC}


def _field_of(key: str, forms: Mapping[str, str]) -> tuple[str, str | None]:
    for field, form in forms.items():
        begin = form.partition("{}")[0]
        if key.startswith(begin) and key != begin:
            return field, key.removeprefix(begin)
    return key, None
