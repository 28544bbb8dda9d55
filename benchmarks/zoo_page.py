"""The page of the zoo: `docs/zoo.md`, written from its results."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
ALL_STEPS = 6
NOTICE = "<!-- Written by `python benchmarks/zoo.py --write` from benchmarks/results/zoo.json: change neither by hand. -->"
HEAD = """# The zoo: networks of timm and torchvision, from the dry run to the engine
{notice}

Of the first four networks, in the order of the alphabet, of {modules} modules: those that were run.
Each goes through six steps in a process of its own: **dry run** (built, traced,
its groups cut on trial), **cut** (about half of the channels of every group, a multiple of eight, drawn at random), **training step**, **INT8** (quantisers,
calibration), **export** (a float file and a Q/DQ file, each run by ONNX Runtime), **engine** (both built for this CPU and run). Weights are random: what is
shown is whether a network passes, not how accurate it gets. RepVGG is a part of `byobnet` in timm 1.0; a network of a fixed input size is built for the
size shown.

**{counts}.** {fresh}

- *complete*: all six steps, and engines compute what the torch network computes. Float engines differ by 1 % at most of how much the logits vary between
  images, INT8 engines from the simulated INT8 network by 10 %, or by little more than what quantisation itself costs a network that is not trained.
- *refused*: the dry run says why, before any training. *failed*, *differs*: a fault of Bonsai's, told here until it is mended.
- *prunable*: share of the parameters and of the multiply-accumulates in layers that a group runs through.
- *INT8 MACs*: share of the multiply-accumulates of the cut network that are INT8; the rest stays in float.
- *INT8 engine*: mean difference of its logits from those of the simulated INT8 network, by how much they vary between images.
- *run*: the day. A row without one is older than the couplings by labels, which cut channels that are shared in part, heads and fused networks.

{host}.
"""
COLUMNS = ("network", "pixels", "parameters M", "groups (refused)", "prunable parameters, MACs", "INT8 MACs", "INT8 engine", "CPU s", "run", "outcome")
Row = Mapping[str, Any]


def outcome(row: Row) -> str:
    """Return ``complete``, or the step that a network did not pass and the reason."""
    for step, found in row["steps"].items():
        if found["outcome"] != "ok":
            return f"{found['outcome']} at {step}: {found['reason']}"
    return "complete" if len(row["steps"]) == ALL_STEPS else "failed: the process ended without a word"


def write_page(rows: Mapping[str, Row], facts: Mapping[str, Any], page: Path = PAGE) -> None:
    """Write the page."""
    page.write_text(page_of(rows, facts), encoding="utf-8")


def page_of(rows: Mapping[str, Row], facts: Mapping[str, Any]) -> str:
    """Return the text of the page."""
    kinds = Counter(outcome(row).partition(" ")[0].rstrip(":") for row in rows.values())
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("complete", "refused", "failed", "differs") if kinds[kind] or kind == "complete")
    tools = facts["tools"]
    host = f"{facts['host']}; torch {tools['torch']}, ONNX Runtime {tools['onnxruntime']}; a thread each"
    new = Counter(outcome(row).partition(" ")[0].rstrip(":") for row in rows.values() if "run" in row)
    fresh = f"Of the {new.total()} with a day, {new['complete']} are complete." if new else ""
    head = HEAD.format(notice=NOTICE, fresh=fresh, modules=len({row["module"] for row in rows.values()}), counts=f"{counts}, of {len(rows)}", host=host)
    table = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *(_line(row) for row in rows.values())]
    return "\n".join([head, *table]) + "\n"


def _line(row: Row) -> str:
    cells = (
        f"{row['module']}: {row['model']}",
        str(row.get("size", "-")),
        f"{row['parameters'] / 1e6:.1f}" if "parameters" in row else "-",
        f"{row['groups']} ({row['refused_groups']})" if "groups" in row else "-",
        f"{row['prunable_parameters']:.0%}, {row['prunable_macs']:.0%}" if "prunable_macs" in row else "-",
        f"{row['int8_macs']:.0%}" if "int8_macs" in row else "-",
        f"{row['differences']['ort engine']:.1%}" if "ort engine" in row["differences"] else "-",
        f"{row['seconds']:.0f}",
        row.get("run", "-"),
        _cell(outcome(row)),
    )
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Return a text that breaks no table and is no HTML."""
    text = text if len(text) <= 260 else f"{text[:257]}..."
    for mark, written in (("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("_", "\\_"), ("[", "\\["), ("`", "'"), ("\n", " ")):
        text = text.replace(mark, written)
    return text
