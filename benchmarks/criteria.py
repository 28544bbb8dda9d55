"""What to prune by: every criterion after an early cut and a long recovery, at equal latency and training. `criteria_trained.py` has a short one.

python benchmarks/criteria.py [--device cuda --workers 12]      # results/criteria.json and criteria.svg
"""

from pathlib import Path
from typing import Any, get_args

from arena import RESULTS, Outcome, Setting, by_setting, mean_interval, parse, run_all, shown, write_summary

from bonsai.stages.pruning.criteria import Criterion

Tables = dict[str, dict[str, dict[str, Any]]]
EPOCH, BUDGET = 6, 0.22
STEPS = {"steps": 8, "iterations": 24}


def main() -> None:
    """Run, summarise and draw."""
    options = parse("Criteria at equal latency")
    file = RESULTS / "criteria.json"
    outcomes = run_all(settings_of(options.seeds), file, options)
    summary = summarise(outcomes)
    write_summary(file, summary)
    for table, rows in summary.items():
        print(f"\n{table}")
        for label, row in rows.items():
            print(f"  {label:34} {shown(row['top1']):14} {shown(row['minus_magnitude_l2']):14} {row['seeds']} seeds")
    draw(summary, file.with_suffix(".svg"))


def settings_of(seeds: int) -> list[Setting]:
    """Return everything that is compared."""
    common = {"budget": BUDGET, "epoch": EPOCH}
    kinds: list[dict[str, object]] = [{"criterion": criterion} for criterion in get_args(Criterion)]
    kinds += [{"schedule": {"name": "linear", **STEPS}}]
    return [Setting.model_validate({"seed": seed, **common, **kind}) for kind in kinds for seed in range(seeds)]


def summarise(outcomes: list[Outcome]) -> Tables:
    """Return tables of test top-1 in percent, best first: mean and 95 % interval over the seeds, and of the difference by seed to magnitude_l2 in one shot."""
    cells = by_setting(outcomes, label_of)
    base = cells["criterion", "magnitude_l2"]
    cells["schedule", "one_shot"] = base
    tables: Tables = {}
    for (table, label), by_seed in cells.items():
        pairs = [(o.test_top1 - base[seed].test_top1) * 100 for seed, o in by_seed.items()]
        top1 = mean_interval([o.test_top1 * 100 for o in by_seed.values()])
        tables.setdefault(table, {})[label] = {"top1": top1, "minus_magnitude_l2": mean_interval(pairs), "seeds": len(by_seed)}
    return {table: dict(sorted(rows.items(), key=lambda row: -row[1]["top1"][0])) for table, rows in tables.items()}


def label_of(outcome: Outcome) -> tuple[str, str]:
    """Return the table and the row that an outcome belongs to."""
    setting = outcome.setting
    return ("schedule", setting.schedule.name) if setting.schedule.steps > 1 else ("criterion", setting.criterion)


def draw(summary: Tables, file: Path) -> None:
    """Draw one panel per table, best on top; what has fewer than three seeds is left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {table: {label: row["top1"] for label, row in rows.items() if row["seeds"] >= 3} for table, rows in summary.items()}
    panels = {table: rows for table, rows in panels.items() if len(rows) > 1}
    heights = [len(rows) + 1 for rows in panels.values()]
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(7, 0.26 * sum(heights) + 1), sharex=True, height_ratios=heights, layout="constrained", squeeze=False
    )
    for axis, (table, rows) in zip(axes[:, 0], panels.items(), strict=True):
        ordered = list(reversed(rows.items()))
        axis.errorbar([mean for _, (mean, _) in ordered], range(len(ordered)), xerr=[spread for _, (_, spread) in ordered], fmt="o", ms=4, capsize=2)
        axis.set_yticks(range(len(ordered)), [label for label, _ in ordered], fontsize=8)
        axis.set_title(table, fontsize=9, loc="left")
        axis.grid(axis="x", alpha=0.3)
    axes[-1, 0].set_xlabel(f"test top-1, % (95 % interval over seeds)\npruned at epoch {EPOCH} of 20 to {BUDGET:.0%} of the dense latency", fontsize=8)
    figure.savefig(file)


if __name__ == "__main__":
    main()
