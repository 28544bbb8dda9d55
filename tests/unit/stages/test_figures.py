import re
from pathlib import Path

from stages.artifacts import History
from stages.figures import draw_training
from stages.pruning.epi import Trigger


def test_the_figure_holds_the_trigger_the_threshold_and_every_phase(tmp_path: Path) -> None:
    phases = ("trunk", "trunk", "branch", "branch", "qat")
    history = [History(step=i, epoch=i + 1, phase=phase, loss=1.0, validation_top1=0.5) for i, phase in enumerate(phases)]
    trigger = Trigger(policy="epi", check=4, epoch=2.0, stable=True, tau=0.944, epochs=(0.5, 1.0, 1.5, 2.0), curve=(None, 0.9, 0.95, 0.99))
    draw_training(tmp_path / "a.svg", trigger, history)
    draw_training(tmp_path / "b.svg", trigger, history)
    svg = (tmp_path / "a.svg").read_text()
    words = set(re.findall(r">([^<>]+)</text>", svg))
    assert {"pruned at epoch 2 (check 4, policy epi)", "EPI", "dense", "pruned", "QAT", "cut", "epoch"} <= words
    assert any("fires at 0.944" in word for word in words)
    assert svg == (tmp_path / "b.svg").read_text()


def test_a_trigger_without_a_curve_is_drawn_too(tmp_path: Path) -> None:
    trigger = Trigger(policy="initialisation", check=1, epoch=0.0, stable=True, tau=0.983, epochs=(0.0,), curve=(None,))
    draw_training(tmp_path / "a.svg", trigger, ())
    assert "policy initialisation" in (tmp_path / "a.svg").read_text()


def test_a_qat_that_did_not_run_is_not_in_the_figure(tmp_path: Path) -> None:
    trigger = Trigger(policy="epi", check=1, epoch=1.0, stable=True, tau=0.944, epochs=(1.0,), curve=(0.95,))
    history = [History(step=i, epoch=i + 1, phase=phase, loss=1.0, validation_top1=0.5) for i, phase in enumerate(("trunk", "branch"))]
    draw_training(tmp_path / "a.svg", trigger, history)
    assert ">QAT<" not in (tmp_path / "a.svg").read_text()
