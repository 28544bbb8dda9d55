"""What to prune by, and how: criteria, normalisations, schedules, regularisers and distillation at equal latency and training.

python benchmarks/criteria.py [--device cuda --workers 12]      # results/criteria.json and criteria.svg
"""

from pathlib import Path
from typing import get_args

from arena import RESULTS, Outcome, Setting, by_setting, mean_interval, parse, run_all, write_summary

from stages.pruning.scores import Criterion
from stages.training.distillation import DistillConfig

EPOCH, BUDGET = 6, 0.22
STEPS = {"steps": 8, "iterations": 24}
SCHEDULES = [{"name": "one_shot"}, *({"name": name, **STEPS} for name in ("linear", "geometric", "cubic"))]
REGULARISERS = [
    {"name": "group_lasso", "strength": 3e-4},
    {"name": "bn_l1", "strength": 1e-3},
    {"name": "growing", "strength": 1e-4, "growth": 1e-4, "every": 10},
]


def main() -> None:
    """Run, summarise and draw."""
    options = parse("Criteria and schedules at equal latency")
    file = RESULTS / "criteria.json"
    outcomes = run_all(settings_of(options.seeds), file, options)
    summary = summarise(outcomes)
    write_summary(file, summary)
    for table, rows in summary.items():
        print(f"\n{table}")
        for label, (mean, spread, difference, uncertainty) in sorted(rows.items(), key=lambda row: -row[1][0]):
            print(f"  {label:34} {mean:6.2f} ± {spread:.2f}   against the first {difference:+.2f} ± {uncertainty:.2f}")
    draw(summary, file.with_suffix(".svg"))


def settings_of(seeds: int) -> list[Setting]:
    """Return everything that is compared."""
    common = {"budget": BUDGET, "epoch": EPOCH}
    kinds: list[dict[str, object]] = [{"criterion": c} for c in get_args(Criterion)]
    kinds += [{"schedule": s} for s in SCHEDULES]
    kinds += [{"distill": DistillConfig()}]
    kinds += [{"criterion": c, "normalisation": "isomorphic"} for c in ("magnitude_l2", "taylor", "bn_gradient")]
    kinds += [{"normalisation": n} for n in ("local", "global")]
    kinds += [{"regulariser": r} for r in REGULARISERS]
    kinds += [{"criterion": "bn_gradient", "schedule": s} for s in SCHEDULES]
    found = [Setting.model_validate({"seed": seed, **common, **kind}) for kind in kinds for seed in range(seeds)]
    return list(dict.fromkeys(found))


def summarise(outcomes: list[Outcome]) -> dict[str, dict[str, tuple[float, float, float, float]]]:
    """Return tables of test top-1 in percent: mean and 95 % interval over the seeds, and the same of the paired difference to magnitude_l2, one-shot."""
    cells = by_setting(outcomes, label_of)
    base = cells["criterion", "magnitude_l2"]
    cells["schedule", "magnitude_l2 one_shot"] = cells["training", "plain"] = base
    cells["schedule", "bn_gradient one_shot"] = cells["criterion", "bn_gradient"]
    tables: dict[str, dict[str, tuple[float, float, float, float]]] = {}
    for (table, label), by_seed in cells.items():
        pairs = [(o.test_top1 - base[seed].test_top1) * 100 for seed, o in by_seed.items()]
        tables.setdefault(table, {})[label] = (*mean_interval([o.test_top1 * 100 for o in by_seed.values()]), *mean_interval(pairs))
    return tables


def label_of(outcome: Outcome) -> tuple[str, str]:
    """Return the table and the row that an outcome belongs to."""
    s = outcome.setting
    if s.distill:
        return "training", "distilled from the trained trunk"
    if s.regulariser.name != "none":
        return "training", s.regulariser.name
    if s.schedule.steps > 1:
        return "schedule", f"{s.criterion} {s.schedule.name}{' soft' if s.schedule.soft else ''}"
    return "criterion", s.criterion + ("" if s.normalisation == "none" else f" / {s.normalisation}")


def draw(summary: dict[str, dict[str, tuple[float, float, float, float]]], file: Path) -> None:
    """Draw one panel per table, best on top."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [len(rows) for rows in summary.values()]
    figure, axes = pyplot.subplots(len(summary), 1, figsize=(7, 0.24 * sum(heights) + 2), sharex=True, height_ratios=heights, layout="constrained")
    for axis, (table, rows) in zip(axes, summary.items(), strict=True):
        ordered = sorted(rows.items(), key=lambda row: row[1][0])
        axis.errorbar([r[0] for _, r in ordered], range(len(ordered)), xerr=[r[1] for _, r in ordered], fmt="o", ms=4, capsize=2)
        axis.set_yticks(range(len(ordered)), [label for label, _ in ordered], fontsize=7)
        axis.set_title(table, fontsize=9, loc="left")
        axis.grid(axis="x", alpha=0.3)
    axes[-1].set_xlabel(f"test top-1, % (95 % interval over seeds), pruned at epoch {EPOCH} to {BUDGET:.0%} of the dense latency")
    figure.savefig(file)


if __name__ == "__main__":
    main()
