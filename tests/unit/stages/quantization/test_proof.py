"""With quantisers that pass their values on a quantised network is the float one, or it is refused before training."""

import copy

import hard_networks
import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.profiles.errors import ConfigError
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization import proof
from bonsai.stages.quantization.calibrate import calibrate, layers_of
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.keeping import float_nodes, layers_to_keep
from bonsai.stages.quantization.layers import QuantConvolution
from bonsai.stages.quantization.proof import prove_quantizable, require_same, vary

SHAPE = (3, 8, 8)
LEFT = {
    "TrainingNoise": (),
    "FunctionalDropout": (),
    "FusedNorm": (),
    "SharedConvolution": ("interpolate (interpolate)",),
    "Siamese": (),
    "Hooked": ("conv2 (Conv2d)",),
    "ChannelAttention": (),
    "AttentionPool": ("attention (MultiheadAttention)",),
    "CosineHead": ("normalize (normalize)", "linear (linear)"),
    "ReflectPadding": ("conv2 (Conv2d)",),
}


def with_middle(middle: object, **modules: nn.Module | nn.Parameter) -> nn.Module:
    """Return a network whose middle is a function of itself and its values."""

    class Middle(hard_networks.Plain):
        def __init__(self) -> None:
            super().__init__()
            for name, module in modules.items():
                setattr(self, name, module)

        def middle(self, x: torch.Tensor) -> torch.Tensor:
            return middle(self, x)  # type: ignore[operator]

    torch.manual_seed(0)
    return Middle()


def conv(**options: object) -> nn.Conv2d:
    return nn.Conv2d(48, 48, **{"kernel_size": 1, **options})  # type: ignore[arg-type]


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(*shape))


def doubled(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda m, inputs, output: output * 2)
    return module


SIBLINGS = {
    "hooked norm": (lambda s, x: s.n(s.a(x)), {"a": conv(), "n": doubled(nn.BatchNorm2d(48))}, ("n",)),
    "hooked activation": (lambda s, x: s.n(s.a(x)), {"a": conv(), "n": doubled(nn.SiLU())}, ("n",)),
    "shared norm": (lambda s, x: s.n(s.a(x)) + s.n(s.b(x)), {"a": conv(), "b": conv(), "n": nn.BatchNorm2d(48)}, ()),
    "norm without parameters": (lambda s, x: s.n(s.a(x)), {"a": conv(), "n": nn.BatchNorm2d(48, affine=False)}, ("n",)),
    "weights used twice": (lambda s, x: functional.conv2d(s.a(x), s.a.weight), {"a": conv()}, ("a", "conv2d")),
    "shared linear": (lambda s, x: x * s.a(functional.relu(s.a(x.mean((2, 3)))))[:, :, None, None], {"a": nn.Linear(48, 48)}, ()),
    "linear on a parameter": (lambda s, x: x * s.a(s.p)[:, None, None], {"a": nn.Linear(4, 48), "p": parameter(4)}, ("mul",)),
    "parametrised": (lambda s, x: s.a(x), {"a": nn.utils.parametrizations.weight_norm(conv())}, ()),
    "learned scale": (lambda s, x: x * s.p, {"p": nn.Parameter(torch.tensor(1.5))}, ("mul",)),
    "factor in an addition": (lambda s, x: torch.add(functional.relu(s.a(x)), x, alpha=-2), {"a": conv()}, ("add",)),
    "mask": (lambda s, x: s.a(x) * (x > 0.3), {"a": conv()}, ("gt", "mul")),
    "learned bound": (lambda s, x: torch.clamp(s.a(x), 0 * s.p, s.p), {"a": conv(), "p": nn.Parameter(torch.tensor(1.0))}, ()),
    "even kernel": (lambda s, x: s.a(x), {"a": conv(kernel_size=2, padding="same")}, ("a",)),
    "output size": (lambda s, x: s.a(x[:, :, ::2, ::2], output_size=x.shape[-2:]), {"a": nn.ConvTranspose2d(48, 48, 3, 2, 1)}, ("a",)),
    "output padding": (lambda s, x: s.a(x[:, :, ::2, ::2]), {"a": nn.ConvTranspose2d(48, 48, 3, 2, 1, output_padding=1)}, ()),
    "window of the image's size": (lambda s, x: x * functional.avg_pool2d(x, x.size()[2:]), {}, ("avg_pool2d",)),
    "three dimensions": (lambda s, x: s.a(x[:, None])[:, 0], {"a": nn.Conv3d(1, 1, 3, padding=1)}, ("a",)),
    "group norm": (lambda s, x: s.a(x), {"a": nn.GroupNorm(4, 48)}, ("a",)),
    "recurrent": (lambda s, x: s.a(x.mean(2).transpose(1, 2))[0].transpose(1, 2)[:, :, None] + x, {"a": nn.LSTM(48, 48, batch_first=True)}, ("mean", "a")),
    "product": (lambda s, x: torch.einsum("nchw,cd->ndhw", x, s.p), {"p": parameter(48, 48)}, ("einsum",)),
    "bicubic": (lambda s, x: functional.interpolate(x, scale_factor=2, mode="bicubic"), {}, ("interpolate",)),
    "in place": (lambda s, x: _in_place(s.a(x), x), {"a": conv()}, ()),
}


def _in_place(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    same = y
    y = y.add_(x)
    return same + torch.relu_(y)


@pytest.mark.parametrize("name", LEFT)
def test_a_hard_network_is_the_same_and_what_stays_in_float_is_listed(name: str) -> None:
    torch.manual_seed(0)
    network = getattr(hard_networks, name)()
    before = copy.deepcopy(network.state_dict())
    assert prove_quantizable(network, SHAPE, (), ("ort", "trt")) == LEFT[name]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # what one of them does on purpose
@pytest.mark.parametrize("name", SIBLINGS)
def test_a_layer_of_another_kind_is_the_same_and_what_stays_in_float_is_listed(name: str) -> None:
    middle, modules, left = SIBLINGS[name]
    found = prove_quantizable(with_middle(middle, **modules), SHAPE, (), ("ort",))
    assert tuple(each.partition(" ")[0] for each in found) == left


@pytest.mark.parametrize("name", ["SharedConvolution", "Siamese"])
def test_a_norm_is_folded_only_into_a_convolution_that_is_called_once(name: str) -> None:
    network = getattr(hard_networks, name)()
    made = insert_quantizers(network, SHAPE, Quantizers(dialect="ort", weight_bits=8))
    shared = {"SharedConvolution": "shared", "Siamese": "conv1"}[name]
    assert [layer.bn is None for layer in layers_of(made) if isinstance(layer, QuantConvolution)].count(True) == 1
    assert made.get_submodule(shared).bn is None


def test_noise_that_training_loses_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(proof, "say", said.append)
    prove_quantizable(hard_networks.TrainingNoise(), SHAPE, (), ("ort",))
    assert said == ["quantisation-aware training leaves out the noise that TrainingNoise adds in training; evaluation is not touched"]


def test_what_is_another_network_in_training_is_refused_by_name() -> None:
    class Scales(hard_networks.Plain):
        def middle(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if self.training else x

    with pytest.raises(ConfigError, match=r"cannot be quantised: in training(.|\n)*asked in the forward of Scales"):
        prove_quantizable(Scales(), SHAPE, (), ("ort",))


def test_a_network_without_any_layer_to_quantise_is_refused() -> None:
    network = nn.Sequential(nn.Unflatten(2, (1, 8)), nn.Conv3d(3, 8, (1, 3, 3)), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    with pytest.raises(ConfigError, match=r"nothing of the network can be quantised\n  given:   Sequential: (.*)1 \(Conv3d\)"):
        prove_quantizable(network, SHAPE, (), ("ort",))


def test_a_rewrite_that_changes_the_network_is_refused_with_the_place() -> None:
    torch.manual_seed(0)
    network = hard_networks.Plain()
    vary(network, SHAPE, 1)
    made = insert_quantizers(network, SHAPE, Quantizers(dialect="ort", weight_bits=8))
    images = torch.randn(8, *SHAPE)
    require_same(network, made, images)
    made.get_submodule("conv2").bn = None
    with pytest.raises(ConfigError, match=r"computes something else\n  given:   Plain: first at (conv2|relu_1)"):
        require_same(network, made, images)


@pytest.mark.parametrize("dialect", ["ort", "trt"])
def test_dropout_drops_in_training_alone_when_quantised(dialect: Dialect) -> None:
    torch.manual_seed(0)
    made = insert_quantizers(hard_networks.FunctionalDropout(), SHAPE, Quantizers(dialect=dialect, weight_bits=8))
    images = torch.randn(4, *SHAPE)
    calibrate(made, [images])
    assert torch.equal(made.eval()(images), made(images))
    for module in made.modules():
        if isinstance(module, QuantConvolution):
            module.frozen = True
    assert not torch.equal(made.train()(images), made(images))


@pytest.mark.parametrize(
    ("name", "globs", "kept"),
    [
        ("ChannelAttention", ["eca"], ("eca",)),
        ("AttentionPool", ["attention.out_proj"], ()),  # in float anyway
        ("ChannelAttention", ["sigmoid"], ("sigmoid",)),
        ("AttentionPool", ["attention.out_proj", "add"], ("add",)),
        ("CosineHead", ["linear", "conv1"], ("conv1",)),
        ("FusedNorm", ["norm"], ("norm",)),
        ("Siamese", ["conv*"], ("conv1", "conv2", "conv3")),
    ],
)
def test_whatever_has_a_name_can_be_kept_in_float(name: str, globs: list[str], kept: tuple[str, ...]) -> None:
    network = getattr(hard_networks, name)()
    assert layers_to_keep(network, globs, SHAPE) == kept
    prove_quantizable(network, SHAPE, globs, ("ort",))
    made = insert_quantizers(network, SHAPE, Quantizers(dialect="ort", weight_bits=8, kept_float=kept))
    cheap = {"norm", "add"}  # a norm is the float convolution's, or a factor
    assert set(kept) - cheap <= {node.name for node in float_nodes(made)}
