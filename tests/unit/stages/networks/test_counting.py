import torch
from torch import nn

from bonsai.stages.networks.counting import count_macs

SHAPE = (3, 8, 8)


class Attention(nn.Module):
    """Torch's own attention, of which evaluation shows nothing but one fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(1).reshape(len(x), 12, 16)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


def test_attention_counts_its_projections_and_both_products() -> None:
    assert count_macs(Attention(), SHAPE) == 4 * 12 * 16 * 16 + 2 * 12 * 12 * 16


class Recurrent(nn.Module):
    """An LSTM over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(24, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x.transpose(1, 2).flatten(2))[0]


def test_a_recurrent_layer_counts_every_step() -> None:
    assert count_macs(Recurrent(), SHAPE) == 8 * 4 * 16 * (24 + 16)


def test_fused_attention_is_as_it_was_after_counting() -> None:
    count_macs(Attention(), SHAPE)
    assert torch.backends.mha.get_fastpath_enabled()


def test_transposed_grouped_and_non_square_convolutions_count_their_own_weights() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, (1, 3), padding=(0, 1)), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.ConvTranspose2d(8, 4, 2, 2))
    assert count_macs(network, SHAPE) == 64 * (3 * 8 * 3 + 8 * 2 * 9 + 8 * 4 * 4)


def test_counting_leaves_every_module_in_its_mode() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    network.train()
    network[1].eval()
    count_macs(network, SHAPE)
    assert [module.training for module in network.modules()] == [True, True, False, True]
