"""State is a value: it can be stacked, split, written and read back, and it knows to whom it belongs."""

import pytest
import torch

from vidseq.errors import StateError
from vidseq.state import MAX_STATE_BYTES, State, StateHeader, stack

HEADER = StateHeader(trunk="abc", cell="gru", dtype="float32")


def a_state(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return State(
        {"recurrent.h": torch.randn(1, 2, 8), "action.mean": torch.randn(1, 8), "clock": torch.rand(1, 3).double()}
    )


def test_bytes_bring_back_every_number_exactly() -> None:
    state = a_state()
    again = State.from_bytes(state.to_bytes(HEADER), header=HEADER, like=a_state())
    assert again.tensors.keys() == state.tensors.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in state.tensors.items())
    assert again.tensors["clock"].dtype == torch.float64


def test_stacked_states_split_into_themselves() -> None:
    states = [a_state(seed) for seed in range(3)]
    for before, after in zip(states, stack(states).split(), strict=True):
        assert all(torch.equal(before.tensors[name], after.tensors[name]) for name in before.tensors)


@pytest.mark.parametrize("field", ["trunk", "cell", "dtype", "schema"])
def test_a_state_of_another_model_is_refused_by_name(field: str) -> None:
    data = a_state().to_bytes(HEADER)
    other = StateHeader(**{**HEADER.to_metadata(), field: "other"})
    with pytest.raises(StateError, match=field):
        State.from_bytes(data, header=other, like=a_state())


@pytest.mark.parametrize("data", [b"", b"\x00" * 8, b"\xff" * 40, b"\x02\x00\x00\x00\x00\x00\x00\x00{}", b"[" * 60_000])
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises(StateError):
        State.from_bytes(data, header=HEADER, like=a_state())


def test_a_truncated_state_is_refused() -> None:
    with pytest.raises(StateError):
        State.from_bytes(a_state().to_bytes(HEADER)[:-5], header=HEADER, like=a_state())


def test_a_state_over_the_budget_is_refused_unread() -> None:
    with pytest.raises(StateError, match="65,536"):
        State.from_bytes(b"\x00" * (MAX_STATE_BYTES + 1), header=HEADER, like=a_state())


def test_states_of_different_models_do_not_stack() -> None:
    with pytest.raises(StateError):
        stack([a_state(), State({"recurrent.h": torch.zeros(1, 2, 8)})])


def test_a_part_is_named_without_its_prefix_and_replaces_only_itself() -> None:
    state = a_state()
    assert state.part("recurrent").keys() == {"h"}
    changed = state.replace({"h": torch.zeros(1, 2, 8)}, prefix="recurrent")
    assert changed.tensors["recurrent.h"].abs().sum() == 0
    assert torch.equal(changed.tensors["action.mean"], state.tensors["action.mean"])


@pytest.mark.parametrize(
    "hostile",
    [
        {"recurrent.h": torch.zeros(1, 3, 8)},
        {"recurrent.h": torch.zeros(2, 2, 8), "action.mean": torch.zeros(2, 8), "clock": torch.zeros(2, 3).double()},
        {"recurrent.h": torch.zeros(1, 2, 8).half()},
        {"surplus": torch.zeros(1, 1)},
    ],
    ids=["shape", "number of streams", "type", "surplus"],
)
def test_a_state_that_would_fail_a_batch_is_refused(hostile: dict[str, torch.Tensor]) -> None:
    data = a_state().replace(hostile).to_bytes(HEADER) if len(hostile) == 1 else State(hostile).to_bytes(HEADER)
    with pytest.raises(StateError, match=r"this model's are .*float32\[1, 2, 8\]"):
        State.from_bytes(data, header=HEADER, like=a_state())


def test_a_state_that_lacks_a_tensor_is_refused() -> None:
    data = State({"recurrent.h": torch.zeros(1, 2, 8)}).to_bytes(HEADER)
    with pytest.raises(StateError, match=r"action\.mean"):
        State.from_bytes(data, header=HEADER, like=a_state())


def test_a_state_over_the_budget_is_not_written() -> None:
    with pytest.raises(StateError, match="65,536"):
        State({"recurrent.h": torch.zeros(1, 4, 4096)}).to_bytes(HEADER)
