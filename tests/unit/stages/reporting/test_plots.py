import re
from pathlib import Path

from tiny_report import HISTORY, TRIGGER

from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.reporting.plots import Point, draw_learning, draw_training, draw_widths, learning_curve, mark_front
from bonsai.stages.tasks.classification.judging import CLASSIFICATION


def words(svg: str) -> set[str]:
    return set(re.findall(r">([^<>]+)</text>", svg))


def test_the_cards_figure_holds_the_trigger_the_threshold_and_every_phase_and_is_always_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw_training(tmp_path / f"{name}.svg", TRIGGER, HISTORY, (2.0,), CLASSIFICATION.metric)
    svg = (tmp_path / "a.svg").read_text()
    assert {
        "pruned at epoch 2 (check 4, policy epi)",
        "EPI (same widths)",
        "same channels",
        "fires at 0.944",
        "dense",
        "pruned",
        "QAT",
        "cut",
        "epoch",
    } <= words(svg)
    assert svg == (tmp_path / "b.svg").read_text()


def test_the_cards_figure_reaches_to_the_last_epoch(tmp_path: Path) -> None:
    draw_training(tmp_path / "a.svg", TRIGGER, [line.model_copy(update={"epoch": 10 * line.epoch}) for line in HISTORY], (2.0,), CLASSIFICATION.metric)
    assert "50" in words((tmp_path / "a.svg").read_text())  # a mark of the axis


def test_a_trigger_without_a_curve_is_drawn_too(tmp_path: Path) -> None:
    trigger = Trigger(policy="initialisation", check=1, epoch=0.0, stable=True, tau=0.983, epochs=(0.0,), curve=(None,), overlap=(None,))
    draw_training(tmp_path / "a.svg", trigger, (), (0.0,), CLASSIFICATION.metric)
    assert "policy initialisation" in (tmp_path / "a.svg").read_text()


def test_a_phase_that_did_not_run_is_not_in_the_figure() -> None:
    assert "QAT" not in words(draw_learning(TRIGGER, HISTORY[:4], (2.0,), CLASSIFICATION.metric))


def test_every_cut_is_a_line_and_the_legend_names_them_once() -> None:
    one, three = draw_learning(TRIGGER, HISTORY, (2.0,), CLASSIFICATION.metric), draw_learning(TRIGGER, HISTORY, (2.0, 2.5, 3.0), CLASSIFICATION.metric)
    assert three.count("stroke-dasharray") == one.count("stroke-dasharray") + 2
    assert three.count(">cut</text>") == 1


def test_a_figure_of_widths_names_every_group_and_grows_with_them() -> None:
    few, many = ({f"layer{i}": 16 for i in range(count)} for count in (2, 30))
    assert set(many) <= words(draw_widths(many, many, many))
    heights = [float(match[1]) for svg in (draw_widths(few, few, few), draw_widths(many, many, many)) if (match := re.search(r'height="([\d.]+)pt"', svg))]
    assert heights[1] > 3 * heights[0]


def test_the_learning_curve_is_the_trunk_to_its_end_and_then_the_branch() -> None:
    trunk = (*HISTORY[:2], HISTORY[1].model_copy(update={"epoch": 9.0}))
    assert [(line.phase, line.epoch) for line in learning_curve(trunk, HISTORY)] == [
        ("trunk", 1),
        ("trunk", 2),
        ("trunk", 9),
        ("branch", 3),
        ("branch", 4),
        ("qat", 5),
    ]


def test_the_front_is_what_nothing_beats_in_both() -> None:
    found = mark_front([point("slow", 2.0, 0.95), point("beaten", 1.5, 0.9), point("fast", 1.0, 0.94), point("as fast", 1.0, 0.93)], CLASSIFICATION.metric)
    assert [one.label for one in found if one.is_front] == ["slow", "fast"]


def point(label: str, latency: float, top1: float) -> Point:
    return Point(label=label, kind="pruned", latency=latency, value=top1, low=top1, high=top1, estimated=False)
