"""Cutting at once, in steps, and in steps behind reversible masks, at equal latency and training: a cycle of ten epochs, cut from the third on.

python benchmarks/soft.py [--device cuda --workers 12]      # results/soft.json
"""

from arena import RESULTS, Setting, by_setting, mean_interval, parse, run_all, shown, write_summary
from criteria import BUDGET, STEPS

from bonsai.stages.pruning.schedule import ScheduleConfig

CYCLE, EPOCH = 10, 3
KINDS = {
    "one_shot": ScheduleConfig(),
    "linear": ScheduleConfig(name="linear", **STEPS),
    "linear, soft": ScheduleConfig(name="linear", **STEPS, soft=True),
}


def main() -> None:
    """Run and summarise."""
    options = parse("One cut, cuts in steps, and reversible masks")
    options.epochs = options.epochs or CYCLE
    settings = [
        Setting(seed=seed, budget=BUDGET, epoch=EPOCH, criterion="bn_gradient", schedule=schedule)
        for seed in range(options.seeds)
        for schedule in KINDS.values()
    ]
    file = RESULTS / "soft.json"
    cells = by_setting(run_all(settings, file, options), lambda outcome: outcome.setting.schedule)
    base = cells[KINDS["linear"]]
    rows = {}
    for label, schedule in KINDS.items():
        found = cells[schedule]
        pairs = [(outcome.test_top1 - base[seed].test_top1) * 100 for seed, outcome in found.items()]
        rows[label] = {"top1": mean_interval([o.test_top1 * 100 for o in found.values()]), "minus_linear": mean_interval(pairs)}
        print(f"{label:14} {shown(rows[label]['top1'])}   against linear {shown(rows[label]['minus_linear'])}")
    write_summary(file, rows)


if __name__ == "__main__":
    main()
