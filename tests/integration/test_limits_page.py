"""What is refused, left whole or left in float, and why: every row of `limits.LIMITS` is run, and `docs/limits.md` says what it was told."""

import copy

import pytest
import torch
from hard_networks import AttentionPool, Factorised, ReflectPadding
from harder_networks import Standardised
from limits import LIMITS, PAGE, SECTIONS, row_of, section_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from walking import CLASSES, distance, model_of, pixels, ready, simulated, walked

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.keeping import layers_to_keep
from bonsai.stages.selection.operator_records import count_macs_at
from bonsai.stages.selection.operators import list_operators

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning"),  # torch, of the old weight norm
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),  # torch, of a parametrised weight
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),  # torch, which compiles what it deprecates too
    pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning"),  # Torch-Pruning, of parameters without a layer
]
SHAPE = (3, 16, 16)
OUT_OF_DATE = "docs/limits.md is out of date: run `python tests/limits.py` and commit it"


@pytest.mark.parametrize("name", LIMITS)
def test_a_network_is_treated_as_it_must_be_and_the_page_says_so(name: str) -> None:
    limit = LIMITS[name]
    told = limit.run()
    assert limit.fault(told) == ""
    assert row_of(name, told) in section_of(PAGE.read_text(encoding="utf-8"), told.kind), OUT_OF_DATE


@pytest.mark.long  # two exports each
@pytest.mark.parametrize("name", [name for name, limit in LIMITS.items() if limit.run.func is simulated and "refused" not in limit.must])
def test_a_network_that_was_simulated_is_exported_as_the_same_function(name: str) -> None:
    run = LIMITS[name].run
    assert walked(*run.args, **run.keywords, float_too=True).kind in (*LIMITS[name].must, "float")


def test_the_page_has_no_other_rows() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = [line for kind in SECTIONS for line in section_of(page, kind) if line.startswith(("| ", "- ")) and line != "| network | Bonsai says |"]
    assert len(rows) == len(LIMITS), OUT_OF_DATE


def quantised(name: str) -> tuple[nn.Module, nn.Module]:
    """Return a network in training mode and its quantised form, which shares nothing with it."""
    network = ready(build_network(model_of(name), SHAPE, CLASSES), SHAPE)
    made = insert_quantizers(copy.deepcopy(network).train(), SHAPE, Quantizers(dialect="ort", weight_bits=8))
    calibrate(made, [pixels(32, SHAPE, seed=1)])
    return network, made


@pytest.mark.parametrize("name", ["TrainingNoise", "FunctionalDropout", "harder_networks:DropPath", "harder_networks:DropPathModule"])
def test_what_is_random_in_training_is_not_in_evaluation(name: str) -> None:
    network, made = quantised(name)
    images = pixels(8, SHAPE, seed=3)
    with torch.no_grad():
        assert torch.equal(made.eval()(images), made(images))
        assert distance(network.eval()(images), made(images)) < 0.3


@pytest.mark.parametrize("name", ["FunctionalDropout", "harder_networks:DropPathModule"])
def test_what_is_random_in_training_stays_so_in_the_quantised_network(name: str) -> None:
    _, made = quantised(name)
    images, answers = pixels(8, SHAPE, seed=3), []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        with torch.no_grad():
            answers.append(copy.deepcopy(made).train()(images))  # a copy, since running statistics move with every call
    assert torch.equal(answers[0], answers[2])
    assert not torch.equal(answers[0], answers[1])


def test_a_norm_fused_with_its_activation_goes_on_learning_its_statistics() -> None:
    _, made = quantised("FusedNorm")
    before = made.get_buffer("extra.bn.running_mean").clone()  # folded into the convolution before it
    with torch.no_grad():
        made.train()(pixels(8, SHAPE, seed=3))
    assert not torch.equal(before, made.get_buffer("extra.bn.running_mean"))


@pytest.mark.parametrize(("network", "glob"), [(AttentionPool, "attention"), (ReflectPadding, "conv2")])
def test_keep_float_knows_a_layer_that_would_stay_in_float_anyway(network: type[nn.Module], glob: str) -> None:
    assert layers_to_keep(network(), (glob,), SHAPE) == ()  # nothing more stays in float for it
    with pytest.raises(ConfigError, match="nothing that computes has this name"):
        layers_to_keep(network(), (f"{glob}x",), SHAPE)


@pytest.mark.parametrize(("network", "least"), [(Factorised, 1.0), (Standardised, 0.9)])
def test_macs_are_those_that_torch_counts_whichever_way_the_image_lies(network: type[nn.Module], least: float) -> None:
    for shape in ((3, 16, 24), (3, 24, 16)):
        made = network().eval()
        groups = find_groups(made, shape)
        counted = count_macs_at(list_operators(made, groups, shape), {group.name: group.width for group in groups})
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            made(torch.zeros(1, *shape))
        assert least <= counted / (counter.get_total_flops() // 2) <= 1
