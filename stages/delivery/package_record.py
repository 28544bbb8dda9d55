"""A finished package as the store keeps it."""

from bonsai.stages.delivery.decisions import Decisions
from bonsai.stages.measurement.measurements import Against, Gate, Row
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.metric import Metric


class Package(Artifact):
    """Files: ``package/``, whose content `docs/packages.md` lists.

    Attributes:
        metric: What accuracies are of.
        notes: Why this precision, and how the accuracy and the latency of the rows were found.
        warnings: What takes the meaning from the verdict, a sentence each.
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
