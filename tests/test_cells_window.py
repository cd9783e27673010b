"""Convolution and attention see exactly their window of the past, whatever the chunks and blocks they work in."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vidseq.cells.layer import Layer
from vidseq.cells.window import Attention, Conv
from vidseq.config import RecurrentConfig
from vidseq.recurrent import Recurrent


def a_layer(layer: Layer) -> Layer:
    """With weights that make every frame of the window count."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer.double()


def reach(layer: Layer, frames: int = 40) -> list[int]:
    """How many frames back from the last one the input has a gradient."""
    input_BTI = torch.randn(8, frames, 4, dtype=torch.float64, requires_grad=True)
    hidden_BTH, _ = layer(input_BTI, {name: tensor.double() for name, tensor in layer.start(8).items()}, None)
    (gradient_BTI,) = torch.autograd.grad(hidden_BTH[:, -1].sum(), input_BTI)
    return [back for back in range(frames) if gradient_BTI[:, frames - 1 - back].any()]


@pytest.mark.parametrize("dilation", [1, 2, 8])
def test_a_convolution_sees_three_frames(dilation: int) -> None:
    assert reach(a_layer(Conv(4, 8, dilation=dilation))) == [0, dilation, 2 * dilation]


@pytest.mark.parametrize("window_frames", [2, 5, 32])
def test_attention_sees_its_window_and_nothing_else(window_frames: int) -> None:
    assert reach(a_layer(Attention(4, 8, window_frames=window_frames))) == list(range(window_frames))


@pytest.mark.parametrize(("cell", "num_layers", "num_seen"), [("conv", 4, 31), ("attention", 3, 13)])
@torch.no_grad()
def test_what_lies_before_the_window_of_a_stack_changes_nothing(cell: str, num_layers: int, num_seen: int) -> None:
    """Also not through the state: 1 + 2 (1 + 2 + 4 + 8) frames for convolutions, 1 + 3 (5 - 1) for attention."""
    torch.manual_seed(0)
    config = RecurrentConfig.model_validate({"cell": cell, "num_layers": num_layers, "window_frames": 5})
    recurrent = Recurrent(config, feature_size=4).eval()
    feature_BTD = torch.randn(1, 60, 4)
    _, state = recurrent(feature_BTD[:, :59])
    expected_BTH, _ = recurrent(feature_BTD[:, 59:], state)
    feature_BTD[:, : 60 - num_seen] = torch.randn(1, 60 - num_seen, 4)
    _, state = recurrent(feature_BTD[:, :59])
    torch.testing.assert_close(recurrent(feature_BTD[:, 59:], state)[0], expected_BTH)
    feature_BTD[:, 60 - num_seen, 0] += 10.0
    _, state = recurrent(feature_BTD[:, :59])
    assert not torch.equal(recurrent(feature_BTD[:, 59:], state)[0], expected_BTH)


@torch.no_grad()
def test_a_convolution_is_that_of_torch() -> None:
    layer = a_layer(Conv(4, 8, dilation=2))
    input_BTI = torch.randn(2, 15, 4, dtype=torch.float64)
    found_BTH, _ = layer(input_BTI, {"inputs": layer.start(2)["inputs"]}, None)
    weight_HIK = layer.taps.weight.unflatten(1, (3, 4)).transpose(1, 2)
    padded_BIU = functional.pad(input_BTI.transpose(1, 2), (4, 0))
    expected_BHT = functional.conv1d(padded_BIU, weight_HIK, layer.taps.bias, dilation=2).relu()
    torch.testing.assert_close(found_BTH, expected_BHT.transpose(1, 2))


def attended(layer: Attention, input_TI: Tensor, frame: int) -> Tensor:
    """The definition for one frame: softmax over the window, head by head."""
    seen = range(max(0, frame - layer.window_frames + 1), frame + 1)
    key_value_TH = layer.key_value(input_TI)
    key_TH, value_TH = key_value_TH[:, :8], key_value_TH[:, 8:]
    query_H, heads = layer.query(input_TI[frame]), []
    for head in range(4):
        part = slice(2 * head, 2 * head + 2)
        logits = [query_H[part] @ key_TH[j, part] / math.sqrt(2) + layer.bias_KW[head, frame - j] for j in seen]
        share = torch.stack(logits).softmax(dim=0)
        heads.append(sum(a * value_TH[j, part] for a, j in zip(share, seen, strict=True)))
    return torch.relu(layer.own(input_TI[frame]) + layer.attended(torch.cat(heads)))


@pytest.mark.parametrize("frames", [1, 4, 5, 6, 17])
@torch.no_grad()
def test_attention_is_a_softmax_over_the_window_with_a_bias_of_the_distance(frames: int) -> None:
    layer = a_layer(Attention(4, 8, window_frames=5))
    input_TI = torch.randn(frames, 4, dtype=torch.float64)
    start = {name: tensor.double() for name, tensor in layer.start(1).items()}
    found_BTH, _ = layer(input_TI[None], start, None)
    expected_TH = torch.stack([attended(layer, input_TI, frame) for frame in range(frames)])
    torch.testing.assert_close(found_BTH[0], expected_TH)


@torch.no_grad()
def test_a_faded_frame_takes_part_by_its_weight() -> None:
    """Half a weight is a bias of log 1/2: the frames that were count half as much beside the one that is."""
    layer = a_layer(Attention(4, 8, window_frames=3))
    input_BTI = torch.randn(1, 3, 4, dtype=torch.float64)
    _, memory = layer(input_BTI[:, :2], {name: tensor.double() for name, tensor in layer.start(1).items()}, None)
    found_BTH, _ = layer(input_BTI[:, 2:], layer.faded(memory, 0.5), None)
    layer.bias_KW[:, 1:] += math.log(0.5)
    expected_BTH, _ = layer(input_BTI[:, 2:], memory, None)
    torch.testing.assert_close(found_BTH, expected_BTH)
