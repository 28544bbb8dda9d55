"""A finished package as the store keeps it."""

from bonsai.stages.delivery.decisions import Decisions
from bonsai.stages.measurement.measurements import Against, Gate, Row
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.metric import Metric


class Package(Artifact):
    """Files: ``package/``, whose content `docs/packages.md` lists.

    Attributes:
        metric: The metric of all accuracies.
        notes: Why this precision, and how the accuracy and the latency of the rows were found.
        warnings: Reasons why the verdict means little, one sentence each.
        against: The engine beside an earlier package's; None where none was named.
    """

    name: str
    metric: Metric
    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]
    notes: tuple[str, str, str]
    warnings: tuple[str, ...] = ()
    against: Against | None = None
    engine_sha256: str
    decisions: Decisions
