"""Between layers: nothing, a sum, or a gate that learns how much of the input goes on."""

import pytest
import torch

from vidseq.cells.links import Link


def test_a_plain_link_has_no_weights_and_changes_nothing() -> None:
    link, hidden_BTH = Link("plain", input_size=3, output_size=4), torch.randn(2, 5, 4)
    assert link(torch.randn(2, 5, 3), hidden_BTH) is hidden_BTH
    assert list(link.parameters()) == []


def test_a_residual_adds_the_input_itself_where_sizes_agree() -> None:
    link, input_BTI, hidden_BTH = (
        Link("residual", input_size=4, output_size=4),
        torch.randn(2, 5, 4),
        torch.randn(2, 5, 4),
    )
    torch.testing.assert_close(link(input_BTI, hidden_BTH), input_BTI + hidden_BTH)
    assert list(link.parameters()) == []


def test_a_residual_projects_the_input_where_sizes_differ() -> None:
    link, input_BTI = Link("residual", input_size=3, output_size=4), torch.randn(2, 5, 3)
    torch.testing.assert_close(link(input_BTI, torch.zeros(2, 5, 4)), input_BTI @ link.carried.weight.T)


def test_a_highway_mixes_by_a_gate_of_its_input() -> None:
    """Srivastava 2015: y = T h + (1 - T) x."""
    link, input_BTI, hidden_BTH = (
        Link("highway", input_size=4, output_size=4),
        torch.randn(2, 5, 4),
        torch.randn(2, 5, 4),
    )
    gate_BTH = torch.sigmoid(input_BTI @ link.gate.weight.T + link.gate.bias)
    torch.testing.assert_close(link(input_BTI, hidden_BTH), gate_BTH * hidden_BTH + (1 - gate_BTH) * input_BTI)


def test_a_highway_starts_by_carrying() -> None:
    link = Link("highway", input_size=4, output_size=4)
    torch.testing.assert_close(
        link(torch.zeros(1, 1, 4), torch.ones(1, 1, 4)), torch.full((1, 1, 4), 0.2689), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(("bias", "expected"), [(50.0, 1.0), (-50.0, 0.0)])
def test_a_gate_that_is_open_says_all_and_one_that_is_closed_nothing(bias: float, expected: float) -> None:
    link = Link("highway", input_size=4, output_size=4)
    torch.nn.init.constant_(link.gate.bias, bias)
    mixed_BTH = link(torch.zeros(1, 2, 4), torch.ones(1, 2, 4))
    torch.testing.assert_close(mixed_BTH, torch.full((1, 2, 4), expected))
