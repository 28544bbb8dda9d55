"""How the network was made: widths, trigger, training, and the fit to the budget."""

from collections.abc import Mapping

from bonsai.stages.delivery.decisions import Attempt
from bonsai.stages.measurement.measurements import GIVEN_REFERENCE
from bonsai.stages.networks.checkpoint import History
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.reporting.content import Figure, Part, Table
from bonsai.stages.reporting.evidence import Evidence, percent, written
from bonsai.stages.reporting.plots import PHASES, draw_epi, draw_learning, draw_widths, learning_curve
from bonsai.stages.reporting.svg import inline
from bonsai.stages.selection.loop import Fit
from bonsai.stages.tasks.metric import Metric

REFERENCES = {
    "trained": "The dense network is trained to the end for comparison.",
    "given": GIVEN_REFERENCE,
    "none": "The recipe asks for no dense reference.",
}


def decided_by(evidence: Evidence) -> str:
    """Return when the network was pruned, and by which criterion."""
    return f"pruned {evidence.decisions.trigger.sentence}, by {evidence.decisions.criterion}"


def widths_part(evidence: Evidence, slug: str) -> Part:
    """Return the channels of every group of a package's network."""
    decisions = evidence.decisions
    return widths_of(decisions.dense_widths, decisions.fit, decisions.kept_widths, decisions.positions, slug)


def widths_of(dense: Widths, fit: Fit, kept: Widths, several: Mapping[str, int], slug: str) -> Part:
    """Return the channels of every group.

    Args:
        dense: Of the dense network.
        fit: Those that were chosen.
        kept: Those that are left.
        several: Outputs that each channel of a group stands for, where these are several.
        slug: Put before the name of the figure.
    """
    title, asked = "Widths: asked, dense, kept", fit.widths
    outputs_kept, outputs = (sum(width * several.get(group, 1) for group, width in widths.items()) for widths in (kept, dense))
    total = f"{outputs_kept} of {outputs} channels are kept, in {len(dense)} groups of channels that go together"
    again = "" if asked == kept else " The kept widths differ from those chosen at the trigger, because they were chosen again between the cuts."
    units = " Behind a group's name, (x 64) says that each of its channels is 64 outputs of the layer, such as an attention head." if several else ""
    without = " Of a group that keeps 0 channels, the residual block around it is left out." if 0 in kept.values() else ""
    gap = f"Their value is at most {percent(fit.gap)} below the best that is possible within the predicted latency."
    return Part(
        title=title,
        texts=(f"{total}.{without}{again}{units} {gap}",),
        figures=(Figure(title=title, svg=inline(draw_widths(dense, asked, kept), f"{slug}-widths", title, f"{total}; the table below has every group.")),),
        tables=(
            Table(
                caption="Channels by group",
                headers=("group", "dense", "asked", "kept", "of dense"),
                rows=tuple(
                    (f"{name} (x {several[name]})" if name in several else name, str(width), str(asked[name]), str(kept[name]), percent(kept[name] / width))
                    for name, width in dense.items()
                ),
                folded=True,
            ),
        ),
    )


def trigger_part(evidence: Evidence, slug: str) -> Part:
    """Return when a package's network was pruned, and why then."""
    return moment_of(evidence.decisions.trigger, slug)


def moment_of(trigger: Trigger, slug: str) -> Part:
    """Return when a network was pruned, and why then."""
    title = "When it was pruned: EPI"
    explained = (
        f"EPI compares the widths that the budget would keep now with those at the checks before. 1 means the same widths; pruning begins once EPI is at "
        f"least {trigger.tau:g} and no longer falls. The second curve compares which channels would be kept. It is lower, because channels with nearly the "
        "same score still swap places after the widths have settled."
    )
    checks = zip(trigger.epochs, trigger.curve, trigger.overlap, strict=True)
    return Part(
        title=title,
        texts=(f"Pruned {trigger.sentence}.", explained),
        figures=(Figure(title=title, svg=inline(draw_epi(trigger), f"{slug}-epi", "EPI by epoch", f"Pruned {trigger.sentence}; fires at {trigger.tau:g}.")),),
        tables=(
            Table(
                caption="EPI at every check",
                headers=("check", "epoch", "EPI", "same channels"),
                rows=tuple(
                    (str(n), f"{epoch:.4g}", *("-" if value is None else f"{value:.4f}" for value in values)) for n, (epoch, *values) in enumerate(checks, 1)
                ),
                folded=True,
            ),
        ),
    )


def learning_part(evidence: Evidence, slug: str) -> Part:
    """Return the learning curves with the cuts."""
    decisions, title, metric = evidence.decisions, "Learning curves", evidence.metric
    curve = learning_curve(decisions.dense_history, evidence.manifest.history)
    cuts = ", ".join(f"{epoch:.4g}" for epoch in decisions.cuts)
    soft = evidence.manifest.recipe["prune"]["schedule"]["soft"]
    removed = "masked at each of these epochs and removed at the last:" if soft and len(decisions.cuts) > 1 else "removed at epoch"
    reference = REFERENCES.get(evidence.reference, REFERENCES["trained"]) if evidence.has_reference else REFERENCES["none"]
    text = f"Channels were {removed} {cuts}. {reference} Accuracy is measured on the validation split."
    drawing = draw_learning(decisions.trigger, curve, decisions.cuts, metric)
    return Part(
        title=title,
        texts=(text, *([decisions.recovery.sentence(metric)] if decisions.recovery is not None else [])),
        figures=(Figure(title=title, svg=inline(drawing, f"{slug}-learning", f"Validation {metric.label} by epoch", _describe_curve(curve, metric))),),
        tables=(
            Table(
                caption="Every epoch",
                headers=("phase", "epoch", "loss", f"validation {metric.label}"),
                rows=tuple((PHASES[line.phase][0], f"{line.epoch:.4g}", f"{line.loss:.4g}", written(metric, line.validation)) for line in curve),
                folded=True,
            ),
        ),
    )


def fitting_part(evidence: Evidence) -> Part:
    """Return the networks that were timed to fit the budget, the branches that were trained, and the precisions that were tried."""
    decisions, metric = evidence.decisions, evidence.metric
    tables = []
    if any(attempt.rounds for attempt in decisions.attempts):
        tables.append(
            Table(
                caption="Networks that were timed to fit the budget",
                headers=("network", "predicted ms", "measured ms", "measured over predicted", "at most ms"),
                rows=tuple(row for number, attempt in enumerate(decisions.attempts, 1) for row in _rounds(number, attempt)),
            )
        )
    if decisions.tried:
        tables.append(
            Table(
                caption="Precisions that were tried",
                headers=("precision", f"validation {metric.label}", f"test {metric.label}", "latency / budget", "outcome"),
                rows=tuple((t.precision, _or_dash(t.validation), _or_dash(t.test), _or_dash(t.latency), t.outcome) for t in decisions.tried),
            )
        )
    if decisions.resolutions:
        tables.append(
            Table(
                caption="Input resolutions among which was chosen",
                headers=("height x width", "loss", "predicted value", "outcome"),
                rows=tuple((*each.cells, "chosen" if each.chosen else "-") for each in decisions.resolutions),
            )
        )
    closed = (
        "The device was here: untrained networks of the chosen widths were timed on it, and the latency model was fitted to them. "
        "A network fits if the upper end of the verdict's interval will probably be within the budget ('at most')."
    )
    opened = "The device was not here: nothing was timed, and the widths fit the budget according to the latency table only."
    text = opened if evidence.is_estimated else closed
    worth = (
        ["The value of a resolution is that of the best widths within the budget, less what the rise of the validation loss at that resolution is worth."]
        if decisions.resolutions
        else []
    )
    return Part(title="How the budget was fitted", texts=(f"{text} Latency table: {decisions.table_source}.", *worth), tables=tuple(tables))


def _describe_curve(curve: tuple[History, ...], metric: Metric) -> str:
    ends = {line.phase: line for line in curve}
    return "; ".join(f"{PHASES[phase][0]} ends at epoch {line.epoch:.4g} with {written(metric, line.validation)}" for phase, line in ends.items()) + "."


def _rounds(number: int, attempt: Attempt) -> list[tuple[str, ...]]:
    """Return the untrained networks of one branch, and its engine."""
    timed = [(f"untrained network {place}", r.predicted_ms, r.measured_ms, f"{r.upper_ms:.4f}") for place, r in enumerate(attempt.rounds, 1)]
    timed.append((f"engine of branch {number}", attempt.predicted_ms, attempt.engine_ms, "-"))
    return [(name, f"{predicted:.4f}", f"{measured:.4f}", f"{measured / predicted:.3f}", most) for name, predicted, measured, most in timed]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
