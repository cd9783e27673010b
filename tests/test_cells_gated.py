"""Cho's GRU and MUT1-3 compute what their papers say, checked number by number in plain Python."""

import math
from collections.abc import Callable

import pytest
import torch

from vidseq.cells.gated import Cho, Gated, Mut1, Mut2, Mut3
from vidseq.cells.kernels import Gru

Vector = list[float]
Matrix = list[Vector]
SIZES = [(3, 4), (4, 4)]  # input and hidden: the bare input of MUT1 and MUT2 is projected, or is not


def of(product: Matrix, vector: Vector) -> Vector:
    return [math.fsum(weight * value for weight, value in zip(row, vector, strict=True)) for row in product]


def plus(*vectors: Vector) -> Vector:
    return [math.fsum(values) for values in zip(*vectors, strict=True)]


def times(left: Vector, right: Vector) -> Vector:
    return [a * b for a, b in zip(left, right, strict=True)]


def sigma(vector: Vector) -> Vector:
    return [1 / (1 + math.exp(-value)) for value in vector]


def tanh(vector: Vector) -> Vector:
    return [math.tanh(value) for value in vector]


def mixed(gate: Vector, where_one: Vector, where_zero: Vector) -> Vector:
    return [g * a + (1 - g) * b for g, a, b in zip(gate, where_one, where_zero, strict=True)]


class Weights:
    """A layer's weights as lists, by the names of the papers."""

    def __init__(self, layer: Gated) -> None:
        size = layer.output_size
        self.input = [block.tolist() for block in layer.from_input.weight.split(size)]
        self.bias = [block.tolist() for block in layer.from_input.bias.split(size)]
        self.U = {gate: weight_HH.tolist() for gate, weight_HH in layer.recurrent_weights().items()}
        self.layer = layer

    def bare(self, x: Vector) -> Vector:
        weight = getattr(self.layer.bare_input, "weight", None)
        return x if weight is None else of(weight.tolist(), x)


def cho(w: Weights, x: Vector, h: Vector) -> Vector:
    """arxiv:1406.1078, equations 5 to 8: z says how much of h is kept."""
    r = sigma(plus(of(w.input[0], x), of(w.U["reset"], h), w.bias[0]))
    z = sigma(plus(of(w.input[1], x), of(w.U["update"], h), w.bias[1]))
    n = tanh(plus(of(w.input[2], x), of(w.U["candidate"], times(r, h)), w.bias[2]))
    return mixed(z, h, n)


def mut1(w: Weights, x: Vector, h: Vector) -> Vector:
    """Jozefowicz 2015: z says how much is new."""
    r = sigma(plus(of(w.input[0], x), of(w.U["reset"], h), w.bias[0]))
    z = sigma(plus(of(w.input[1], x), w.bias[1]))
    n = tanh(plus(of(w.U["candidate"], times(r, h)), tanh(w.bare(x)), w.layer.candidate_bias_H.tolist()))
    return mixed(z, n, h)


def mut2(w: Weights, x: Vector, h: Vector) -> Vector:
    r = sigma(plus(w.bare(x), of(w.U["reset"], h), w.layer.reset_bias_H.tolist()))
    z = sigma(plus(of(w.input[0], x), of(w.U["update"], h), w.bias[0]))
    n = tanh(plus(of(w.U["candidate"], times(r, h)), of(w.input[1], x), w.bias[1]))
    return mixed(z, n, h)


def mut3(w: Weights, x: Vector, h: Vector) -> Vector:
    r = sigma(plus(of(w.input[0], x), of(w.U["reset"], h), w.bias[0]))
    z = sigma(plus(of(w.input[1], x), of(w.U["update"], tanh(h)), w.bias[1]))
    n = tanh(plus(of(w.U["candidate"], times(r, h)), of(w.input[2], x), w.bias[2]))
    return mixed(z, n, h)


@pytest.mark.parametrize(("input_size", "hidden_size"), SIZES)
@pytest.mark.parametrize(("kind", "equations"), [(Cho, cho), (Mut1, mut1), (Mut2, mut2), (Mut3, mut3)])
@torch.no_grad()
def test_a_cell_computes_the_equations_of_its_paper(
    kind: type[Gated], equations: Callable[[Weights, Vector, Vector], Vector], input_size: int, hidden_size: int
) -> None:
    torch.manual_seed(0)
    layer = kind(input_size, hidden_size, learned_start=False).double()
    for parameter in layer.parameters():
        parameter.normal_()
    input_BTI, hidden_BH = torch.randn(2, 5, input_size).double(), torch.randn(2, hidden_size).double()
    found_BTH, _ = layer(input_BTI, {"h": hidden_BH}, None)
    for row in range(2):
        hidden = hidden_BH[row].tolist()
        for frame in range(5):
            hidden = equations(Weights(layer), input_BTI[row, frame].tolist(), hidden)
            torch.testing.assert_close(found_BTH[row, frame], torch.tensor(hidden).double())


@torch.no_grad()
def test_the_gru_of_cho_is_not_the_gru_of_torch() -> None:
    """With the same weights, and torch's second bias 0, they part where the reset gate acts."""
    torch.manual_seed(0)
    cho_layer, torch_layer = Cho(3, 4, learned_start=False), Gru(3, 4, learned_start=False)
    torch_layer.kernel.weight_ih_l0.copy_(cho_layer.from_input.weight)
    torch_layer.kernel.bias_ih_l0.copy_(cho_layer.from_input.bias)
    weights = cho_layer.recurrent_weights()
    torch_layer.kernel.weight_hh_l0.copy_(torch.cat([weights[gate] for gate in ("reset", "update", "candidate")]))
    torch_layer.kernel.bias_hh_l0.zero_()
    input_BTI, start = torch.randn(1, 3, 3), cho_layer.start(1)
    cho_BTH, torch_BTH = cho_layer(input_BTI, start, None)[0], torch_layer(input_BTI, start, None)[0]
    torch.testing.assert_close(cho_BTH[:, 0], torch_BTH[:, 0])  # h was zero: nothing to reset
    assert (cho_BTH[:, 1:] - torch_BTH[:, 1:]).abs().max() > 1e-3
