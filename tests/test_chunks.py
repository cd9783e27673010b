"""Batches as the model reads them: all frames once and in order, nothing of padding, answers asked for in place.

Shape letters: B rows, T frames, A action labels, L frame labels.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_examples import numbered, toy_config, toy_examples
from training.data.example import Example
from training.data.targets import IGNORED
from training.loop.batches import Part, Row
from training.loop.chunks import Chunk, Reading
from training.settings import FitConfig

WHOLE = FitConfig()
TRUNCATED = FitConfig(long="truncated", chunk_frames=4)
WINDOW = FitConfig(long="window", chunk_frames=4)


def chunks(examples: Sequence[Example], reading: Reading) -> list[Chunk]:
    return list(reading.chunks([Row((Part(example),)) for example in examples]))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 13))
def test_every_frame_is_read_once_and_in_order_and_padding_asks_for_nothing(lengths: list[int], size: int) -> None:
    examples = [numbered(length) for length in lengths]
    settings = FitConfig(long="truncated", chunk_frames=size)
    rows: list[list[int]] = [[] for _ in lengths]
    for chunk in chunks(examples, Reading.learning(toy_config(frame_labels=tuple(map(str, range(12)))), settings)):
        assert chunk.feature_BTD.shape[1] == chunk.lengths_B.max() <= size
        for row, length in enumerate(chunk.lengths_B.tolist()):
            rows[row] += chunk.feature_BTD[row, :length, 0].long().tolist()
            assert chunk.frame_target_BTL[row, :length].argmax(dim=1).tolist() == rows[row][-length:]
            assert chunk.frame_weight_BT[row].tolist() == [1.0] * length + [0.0] * (size_of(chunk) - length)
    assert rows == [list(range(length)) for length in sorted(lengths, reverse=True)]


def size_of(chunk: Chunk) -> int:
    return chunk.feature_BTD.shape[1]


@pytest.mark.parametrize(
    ("settings", "learning", "measuring"),
    [(WHOLE, [6], [6]), (TRUNCATED, [4, 6], [6]), (WINDOW, [6], [6])],
    ids=["whole", "truncated", "window"],
)
def test_the_action_is_asked_for_at_the_end_of_a_clip_and_in_training_of_each_chunk(
    settings: FitConfig, learning: list[int], measuring: list[int]
) -> None:
    for reading, expected in (
        (Reading.learning(toy_config(), settings), learning),
        (Reading.measuring(toy_config(), settings), measuring),
    ):
        weights = [chunk.action_weight_BT[0] for chunk in chunks(toy_examples([6]), reading)]
        assert (torch.cat(weights).nonzero().flatten() + 1).tolist() == expected


@pytest.mark.parametrize("settings", [WHOLE, TRUNCATED])
def test_a_model_of_one_frame_is_asked_at_every_frame_as_much_as_once(settings: FitConfig) -> None:
    config = toy_config().frame_alone()
    for reading in (Reading.learning(config, settings), Reading.measuring(config, settings)):
        weight_T = torch.cat([chunk.action_weight_BT[0] for chunk in chunks(toy_examples([6]), reading)])
        assert weight_T.tolist() == pytest.approx([1 / 6] * 6)


def test_of_a_window_the_last_frame_alone_is_asked_for() -> None:
    (chunk,) = chunks(toy_examples([6, 3]), Reading.learning(toy_config(), WINDOW))
    assert chunk.frame_weight_BT.tolist() == [[0, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]]
    assert chunk.action_weight_BT.tolist() == [[0, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]]


def test_what_has_no_label_has_no_weight() -> None:
    example = Example(torch.zeros(3, 4), None, torch.tensor([1, IGNORED, 0]))
    (chunk,) = chunks([example], Reading.learning(toy_config(), WHOLE))
    assert chunk.frame_weight_BT.tolist() == [[1, 0, 1]]
    assert not chunk.action_weight_BT.any()


def test_with_a_lookahead_each_step_is_asked_for_an_earlier_frame_also_across_chunks() -> None:
    reading = replace(Reading.learning(toy_config(), TRUNCATED), lookahead_frames=2, num_frame_labels=6)
    found = chunks([numbered(6)], reading)
    weight_T = torch.cat([chunk.frame_weight_BT[0] for chunk in found])
    target_T = torch.cat([chunk.frame_target_BTL[0] for chunk in found]).argmax(dim=1)
    assert weight_T.tolist() == [0, 0, 1, 1, 1, 1]
    assert target_T[2:].tolist() == [0, 1, 2, 3]


def test_two_clips_over_each_other_are_the_mean_of_both_in_what_is_seen_and_in_what_is_to_be_said() -> None:
    first, second = numbered(4, action=0), numbered(4, action=2)
    row = Row((Part(first, 0.75, 1), Part(second, 0.25, 0)))
    reading = replace(Reading.learning(toy_config(), WHOLE), num_frame_labels=4)
    (chunk,) = reading.chunks([row])
    assert chunk.feature_BTD[0, :, 0].tolist() == [0.75, 1.75, 2.75]
    assert chunk.action_target_BTA[0, -1].tolist() == [0.75, 0, 0.25]
    assert chunk.frame_target_BTL[0, 0].tolist() == [0.25, 0.75, 0, 0]


def test_of_a_clip_over_one_without_a_label_only_its_share_counts() -> None:
    row = Row((Part(numbered(3, action=1), 0.75), Part(numbered(3, action=None), 0.25)))
    (chunk,) = replace(Reading.learning(toy_config(), WHOLE), num_frame_labels=3).chunks([row])
    assert chunk.action_weight_BT.tolist() == [[0, 0, 0.75]]
    assert chunk.action_target_BTA[0, -1].tolist() == [0, 1, 0]
