"""When to prune: at every k-th epoch of the trunk, where EPI says, and after the training (train-prune-finetune).

python benchmarks/oracle.py [--device cuda --workers 12]      # results/oracle.json and oracle.svg
"""

import json
from pathlib import Path
from typing import Any

from arena import RESULTS, Outcome, Setting, arena_recipe, by_setting, mean_interval, parse, run_all, write_summary

EPOCHS = (0, 1, 2, 4, 6, 8, 10, 13, 16)
FINETUNE = (5, 10)
BUDGETS = (0.5, 0.3)
LOWEST = 86
"""Of the plot, in percent; what lies below is written there."""
CRITERIA = ("magnitude_l2", "bn_gradient")


def main() -> None:
    """Run the grid, summarise and draw."""
    options = parse("When to prune: EPI against every moment")
    cycle = options.epochs or arena_recipe(0, options.device, {}).training.epochs
    moments = [e for e in EPOCHS if e < cycle]
    settings = [Setting(seed=seed, budget=1) for seed in range(options.seeds)]
    for seed in range(options.seeds):
        for criterion in CRITERIA:
            for budget in BUDGETS:
                common = {"seed": seed, "criterion": criterion, "budget": budget}
                settings += [Setting(**common, epoch=epoch) for epoch in ("epi", *moments)]
                settings += [Setting(**common, epoch=cycle, finetune=length) for length in FINETUNE]
    file = RESULTS / "oracle.json"
    outcomes = run_all(settings, file, options)
    summary = summarise(outcomes, cycle)
    write_summary(file, summary)
    print(json.dumps(summary, indent=1))
    draw(outcomes, summary, file.with_suffix(".svg"))


def moment(outcome: Outcome) -> str:
    """Return the label of the moment at which an outcome was pruned."""
    s = outcome.setting
    return "epi" if s.epoch == "epi" else f"trained+{s.finetune}" if s.finetune else f"{s.epoch:g}"


def summarise(outcomes: list[Outcome], cycle: int) -> dict[str, Any]:
    """Return test top-1 in percent by criterion, budget and moment, and how EPI compares, with 95 % intervals over the seeds."""
    cells = by_setting(outcomes, lambda o: (o.setting.budget, o.setting.criterion, moment(o)))
    dense = [o.test_top1 * 100 for key, by_seed in cells.items() for o in by_seed.values() if key[0] == 1]
    summary: dict[str, Any] = {"dense_top1": mean_interval(dense)}
    for budget in BUDGETS:
        for criterion in CRITERIA:
            here = {label: by_seed for (b, c, label), by_seed in cells.items() if (b, c) == (budget, criterion)}
            top1 = {label: mean_interval([o.test_top1 * 100 for o in by_seed.values()]) for label, by_seed in here.items()}
            grid = {label: value for label, value in top1.items() if label not in ("epi",) and not label.startswith("trained")}
            best = max(grid, key=lambda label: grid[label][0])
            epi = here["epi"]
            against = {}
            for label in (best, *(f"trained+{length}" for length in FINETUNE)):
                pairs = [(epi[seed].test_top1 - other.test_top1) * 100 for seed, other in here[label].items() if seed in epi]
                cost = [epi[seed].training_macs / other.training_macs for seed, other in here[label].items() if seed in epi]
                against[label] = {"epi_minus_it_points": mean_interval(pairs), "training_macs_ratio": mean_interval(cost)}
            summary[f"{budget:.0%} {criterion}"] = {
                "top1": top1,
                "best_moment": best,
                "epi_epoch": [o.epoch for o in epi.values()],
                "epi_settled": [o.settled for o in epi.values()],
                "epi_share_of_cycle": mean_interval([o.epoch / cycle for o in epi.values()]),
                "epi_against": against,
                "predicted_latency": mean_interval([o.predicted for o in epi.values()]),
            }
    return summary


def draw(outcomes: list[Outcome], summary: dict[str, Any], file: Path) -> None:
    """Draw top-1 against the moment of pruning, with EPI's moment marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(CRITERIA), figsize=(10, 4), sharey=True, layout="constrained")
    cells = by_setting(outcomes, lambda o: (o.setting.criterion, o.setting.budget, moment(o)))
    colours = dict(zip(BUDGETS, ("tab:blue", "tab:orange"), strict=True))
    dense = summary["dense_top1"]
    for axis, criterion in zip(axes, CRITERIA, strict=True):
        for budget in BUDGETS:
            points = sorted(
                (by_seed[0].epoch, *mean_interval([o.test_top1 * 100 for o in by_seed.values()]))
                for (c, b, label), by_seed in cells.items()
                if (c, b) == (criterion, budget) and label.replace(".", "").isdigit()
            )
            for epoch, mean, _ in points:
                if mean < LOWEST:
                    axis.annotate(f"{mean:.1f}", (epoch, LOWEST), ha="center", va="bottom", fontsize=8, color=colours[budget])
            axis.errorbar(*zip(*points, strict=True), marker="o", ms=4, capsize=2, color=colours[budget], label=f"pruned to {budget:.0%} latency")
            epi = cells[criterion, budget, "epi"].values()
            axis.plot([o.epoch for o in epi], [o.test_top1 * 100 for o in epi], "*", ms=11, color=colours[budget], mec="black", label=f"EPI, {budget:.0%}")
            for length, marker in zip(FINETUNE, "^v", strict=True):
                after = cells[criterion, budget, f"trained+{length}"].values()
                mean, spread = mean_interval([o.test_top1 * 100 for o in after])
                axis.errorbar(
                    [20.5],
                    [mean],
                    [spread],
                    marker=marker,
                    ms=6,
                    capsize=2,
                    color=colours[budget],
                    mfc="none",
                    label=f"trained, {length} epochs more, {budget:.0%}",
                )
        axis.axhline(dense[0], color="grey", ls=":", label="dense")
        axis.set(title=criterion, xlabel="epoch at which the network is pruned", ylim=(LOWEST, None))
    axes[0].set_ylabel("test top-1, %  (95 % interval over seeds)")
    axes[1].legend(fontsize=7, loc="lower left")
    figure.savefig(file)


if __name__ == "__main__":
    main()
