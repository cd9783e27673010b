"""What changed since the frame before: by the formulas, and the same whatever the chunks and whoever shares a batch."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from vidseq.backbones import build_config
from vidseq.config import MotionConfig
from vidseq.encoder import Encoder
from vidseq.errors import OptionError
from vidseq.motion import PREFIX, Motion
from vidseq.state import State

POOLED_SIZE, CHANNELS, GRID = 3, (2, 4), 2
EVERY_SIGN = pytest.mark.parametrize("sign", ["absolute", "signed", "both"])
BACKBONES = ["timm:test_efficientnet", "timm:resnet10t", "resnet18", "mobilenet_v3_small"]


def a_motion(**options: object) -> Motion:
    settings = {"maps": ("last", "middle"), "grid": GRID, "pooled": True} | options
    return Motion(MotionConfig.model_validate(settings), POOLED_SIZE, CHANNELS)


def encoded(batch: int, frames: int, seed: int = 0) -> Tensor:
    """Rows of which the maps are half precision, as an encoder gives them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, a_motion().encoded_size, generator=generator).half().float()


@EVERY_SIGN
@settings(max_examples=20)
@given(cuts=st.sets(st.integers(1, 11)))
def test_any_chunking_gives_the_one_shot_features(sign: str, cuts: set[int]) -> None:
    motion, encoded_BTE = a_motion(sign=sign), encoded(2, 12)
    whole_BTD, whole = motion(encoded_BTE)
    state, parts = None, []
    for start, stop in pairwise([0, *sorted(cuts), 12]):
        part_BTD, state = motion(encoded_BTE[:, start:stop], state)
        parts.append(part_BTD)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole_BTD, atol=1e-6, rtol=0)
    assert state is not None and whole.tensors.keys() == state.tensors.keys()
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in whole.tensors.items())


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4))
@settings(max_examples=20)
def test_a_short_row_beside_long_ones_is_remembered_by_its_own_last_frame(lengths: list[int]) -> None:
    motion, encoded_BTE = a_motion(), encoded(len(lengths), max(lengths))
    feature_BTD, state = motion(encoded_BTE, None, lengths)
    for row, length in enumerate(lengths):
        alone_BTD, alone = motion(encoded_BTE[row : row + 1, :length])
        torch.testing.assert_close(feature_BTD[row : row + 1, :length], alone_BTD)
        for name, tensor in alone.tensors.items():
            assert torch.equal(state.tensors[name][row : row + 1], tensor)


def test_the_features_are_those_of_the_formulas() -> None:
    motion = Motion(MotionConfig(maps=("last",), grid=GRID), POOLED_SIZE, (2,))
    before_E, now_E = torch.tensor([1.0, 2, 3, *range(8)]), torch.tensor([4.0, 5, 6, 0, 1, 2, 3, 8, 5, 6, 7])
    feature_BTD, _ = motion(torch.stack([before_E, now_E])[None])
    # only the second channel changed, from 4 to 8 at the first of its four positions
    pooled, mean, largest, weighted, flag = feature_BTD[0, 1].split([3, 2, 2, 2, 1])
    assert pooled.tolist() == [4, 5, 6]
    assert mean.tolist() == [0, 1]
    assert largest.tolist() == [0, 4]
    torch.testing.assert_close(weighted, torch.tensor([0.0, 8.0]), atol=1e-5, rtol=0)
    assert flag.tolist() == [1]


def test_the_first_frame_has_moved_nowhere_and_says_so() -> None:
    motion, encoded_BTE = Motion(MotionConfig(grid=GRID), POOLED_SIZE, (2,)), encoded(1, 3)[:, :, :11]
    pooled, mean, largest, weighted, flag = motion(encoded_BTE)[0][0, 0].split([3, 2, 2, 2, 1])
    assert torch.equal(pooled, encoded_BTE[0, 0, :3])
    assert not mean.any() and not largest.any() and not flag.any()
    torch.testing.assert_close(weighted, encoded_BTE[0, 0, 3:].view(2, 4).mean(dim=1))


def test_a_signed_difference_keeps_its_sign_where_an_absolute_one_has_lost_it() -> None:
    falling_BTE = torch.tensor([[[0.0, 5, 5, 5, 5], [0.0, 5, 1, 5, 5]]])
    by_sign = {
        sign: Motion(MotionConfig(grid=2, over=("max",), sign=sign), 1, (1,))(falling_BTE)[0][0, 1, 1:-1].tolist()
        for sign in ("absolute", "signed", "both")
    }
    assert by_sign == {"absolute": [4.0], "signed": [-4.0], "both": [-4.0, 4.0]}


@EVERY_SIGN
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("over", [("mean",), ("max", "weighted"), ("mean", "max", "weighted")])
def test_the_feature_size_is_the_size_of_the_features(sign: str, pooled: bool, over: tuple[str, ...]) -> None:
    motion = a_motion(sign=sign, pooled=pooled, over=over)
    assert motion(encoded(1, 2))[0].shape == (1, 2, motion.feature_size)


def test_what_is_forgotten_after_a_gap_is_all_or_nothing() -> None:
    motion, encoded_BTE = a_motion(), encoded(1, 4)
    _, state = motion(encoded_BTE[:, :2])
    memory = state.part(PREFIX)
    assert motion.faded(memory, 0.3) == memory
    forgotten = State().replace(motion.faded(memory, 0.0), prefix=PREFIX)
    assert torch.equal(motion(encoded_BTE[:, 2:], forgotten)[0], motion(encoded_BTE[:, 2:])[0])


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_a_backbone_of_either_library_shows_its_maps(name: str) -> None:
    motion = MotionConfig(maps=("middle", "last"), grid=3, channels=16)
    torch.manual_seed(0)
    encoder = Encoder(build_config(name, weights="none", motion=motion))
    pixels_NHWC = torch.randint(0, 256, (3, 96, 96, 3), dtype=torch.uint8)
    encoded_NE = encoder(pixels_NHWC)
    assert encoded_NE.shape == (3, encoder.encoded_size)
    feature_BTD, _ = encoder.features(encoded_NE[None])
    assert feature_BTD.shape == (1, 3, encoder.feature_size)
    plain = Encoder(build_config(name, weights="none"))
    plain.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(encoded_NE[:, : encoder.pooled_size], plain(pixels_NHWC), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_maps_of_few_channels_stay_as_they_are_and_others_keep_distances() -> None:
    torch.manual_seed(0)
    whole, projected = (
        Encoder(build_config("timm:test_efficientnet", weights="none", motion=MotionConfig(grid=3, channels=channels)))
        for channels in (512, 48)
    )
    projected.load_state_dict(whole.state_dict())
    pixels_NHWC = torch.randint(0, 256, (6, 96, 96, 3), dtype=torch.uint8)
    maps, fewer = (encoder(pixels_NHWC)[:, encoder.pooled_size :] for encoder in (whole, projected))
    assert maps.shape[1] == 9 * 64 and fewer.shape[1] == 9 * 48
    ratio_N = torch.pdist(fewer) / torch.pdist(maps)
    assert ratio_N.min() > 0.6 and ratio_N.max() < 1.5


@pytest.mark.parametrize("name", ["timm:test_vit", "vit_b_32"])
def test_a_backbone_without_maps_of_two_resolutions_is_named(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name}.*middle"):
        Encoder(build_config(name, weights="none", motion=MotionConfig(maps=("middle",))))


@pytest.mark.parametrize(
    "options",
    [{"maps": ("last", "last")}, {"maps": (), "over": ()}, {"maps": ()}, {"over": ()}, {"grid": 17}, {"channels": 0}],
)
def test_motion_of_nothing_or_too_much_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MotionConfig.model_validate(options)
