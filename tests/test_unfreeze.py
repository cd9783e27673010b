"""Gradients reach the part of the CNN that was unfrozen and no other; batch statistics never move."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.loop.unfreeze import parameter_groups, split_into_blocks, unfreeze
from training.settings import UnfreezeConfig
from vidseq.backbones import build_config
from vidseq.config import MotionConfig
from vidseq.encoder import Encoder
from vidseq.errors import OptionError

TOY = "timm:test_efficientnet"  # 7 blocks: the stem, five, and the last convolution
SIZES = [1, 3, 7, "all"]


def an_encoder(name: str = TOY) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder(build_config(name, weights="none"))


def some_pixels(frames: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (frames, 32, 32, 3), generator=generator, dtype=torch.uint8)


def backward(encoder: Encoder) -> None:
    feature_ND = encoder(some_pixels())
    (feature_ND * torch.arange(feature_ND.numel()).reshape(feature_ND.shape).cos()).sum().backward()


def weights_of(module: nn.Module) -> set[nn.Parameter]:
    return set(module.parameters())


@pytest.mark.parametrize(
    ("name", "num_blocks"),
    [(TOY, 7), ("efficientnet-lite0", 18), ("resnet18", 9), ("mobilenet_v3_small", 14), ("timm:resnet10t", 7)],
)
def test_a_backbone_is_split_into_blocks_that_hold_all_its_weights_once(name: str, num_blocks: int) -> None:
    encoder = an_encoder(name)
    blocks = split_into_blocks(encoder)
    found = [parameter for block in blocks for module in block for parameter in module.parameters()]
    assert len(blocks) == num_blocks
    assert len(found) == len(set(found)) and set(found) == weights_of(encoder)


def test_a_frozen_encoder_records_nothing() -> None:
    assert an_encoder()(some_pixels()).grad_fn is None


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("blocks", SIZES)
def test_gradients_reach_exactly_the_unfrozen_blocks(blocks: object, checkpointed: bool) -> None:
    encoder = an_encoder()
    wanted = weights_of(encoder)
    if blocks != "all":
        wanted = {p for block in split_into_blocks(encoder)[-int(str(blocks)) :] for m in block for p in m.parameters()}
    unfreeze(encoder, UnfreezeConfig.model_validate({"blocks": blocks, "checkpoint_gradients": checkpointed}))
    backward(encoder)
    reached = {parameter for parameter in encoder.parameters() if parameter.grad is not None}
    assert reached == wanted
    assert all(parameter.grad.abs().sum() > 0 for parameter in reached)


@pytest.mark.parametrize("blocks", SIZES)
def test_checkpointed_gradients_are_the_same(blocks: object) -> None:
    plain, checkpointed = an_encoder(), an_encoder()
    unfreeze(plain, UnfreezeConfig.model_validate({"blocks": blocks}))
    unfreeze(checkpointed, UnfreezeConfig.model_validate({"blocks": blocks, "checkpoint_gradients": True}))
    backward(plain)
    backward(checkpointed)
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert one.grad is other.grad is None or torch.equal(one.grad, other.grad)


def counted(module: nn.Module) -> Callable[[], int]:
    """How often this module has been run."""
    runs: list[None] = []
    module.register_forward_pre_hook(lambda *_: runs.append(None))
    return lambda: len(runs)


def test_a_frozen_block_runs_once_and_a_checkpointed_one_again_for_its_gradient() -> None:
    encoder = an_encoder()
    encoder.batch_frames = 6
    blocks = split_into_blocks(encoder)
    frozen, trained = counted(blocks[2][0]), counted(blocks[4][0])
    unfreeze(encoder, UnfreezeConfig(blocks=3, checkpoint_gradients=True))
    backward(encoder)
    assert (frozen(), trained()) == (1, 2)


def test_batch_statistics_stay_what_they_were_while_all_is_trained() -> None:
    encoder = an_encoder()
    unfreeze(encoder, UnfreezeConfig(blocks="all", checkpoint_gradients=True))
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    weights = [parameter.detach().clone() for parameter in encoder.parameters()]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    for _ in range(3):
        encoder.train()
        optimizer.zero_grad()
        backward(encoder)
        optimizer.step()
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())
    assert not any(torch.equal(p, old) for p, old in zip(encoder.parameters(), weights, strict=True))


def test_each_block_learns_more_slowly_than_the_one_after() -> None:
    encoder = an_encoder()
    settings = UnfreezeConfig(blocks=3, learning_rate=1e-3, layer_decay=0.5)
    unfreeze(encoder, settings)
    groups = parameter_groups(encoder, settings)
    assert [group["lr"] for group in groups] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    for group, block in zip(groups, reversed(split_into_blocks(encoder)), strict=False):
        assert set(group["params"]) == {parameter for module in block for parameter in module.parameters()}


def test_what_lies_outside_the_blocks_learns_with_the_rest_when_all_is_unfrozen() -> None:
    encoder = an_encoder("timm:test_vit")
    unfreeze(encoder, UnfreezeConfig(blocks="all"))
    groups = parameter_groups(encoder, UnfreezeConfig(blocks="all"))
    assert {parameter for group in groups for parameter in group["params"]} == weights_of(encoder)
    assert sum(len(group["params"]) for group in groups) == len(weights_of(encoder))
    assert any(parameter is encoder.backbone.cls_token for parameter in groups[-1]["params"])


def test_gradient_checkpoints_do_not_change_what_is_stored() -> None:
    encoder = an_encoder()
    before = encoder.to_bytes()
    unfreeze(encoder, UnfreezeConfig(blocks="all", checkpoint_gradients=True))
    assert encoder.to_bytes() == before
    encoder.load_state_dict(an_encoder().state_dict())


MOTION = MotionConfig(maps=("last", "middle"))


@pytest.mark.parametrize("name", [TOY, "resnet18"])
def test_what_moved_is_seen_by_a_copy_of_its_own_and_teaches_the_layers_below_the_maps(name: str) -> None:
    encoder = Encoder(build_config(name, weights="none", motion=MOTION))
    copied = copy.deepcopy(encoder)
    unfreeze(copied, UnfreezeConfig(blocks="all"))
    feature_BTD, _ = copied.features(copied(some_pixels())[None])
    feature_BTD[..., copied.pooled_size :].sum().backward()
    assert copied.backbone.get_parameter("bn1.weight").grad.abs().sum() > 0
    with torch.no_grad():
        copied.backbone.get_parameter("bn1.weight").mul_(2)
    assert not torch.equal(copied(some_pixels()), encoder(some_pixels()))


def test_gradients_through_maps_can_be_checkpointed_where_timm_reads_them() -> None:
    gradients = []
    for checkpointed in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = Encoder(build_config(TOY, weights="none", motion=MOTION))
        unfreeze(encoder, UnfreezeConfig(blocks=3, checkpoint_gradients=checkpointed))
        encoder.features(encoder(some_pixels())[None])[0].square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters() if parameter.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    torchvisions = Encoder(build_config("resnet18", weights="none", motion=MOTION))
    with pytest.raises(OptionError, match="'resnet18' are read inside"):
        unfreeze(torchvisions, UnfreezeConfig(blocks=3, checkpoint_gradients=True))


def test_a_backbone_that_is_one_block_can_be_unfrozen_as_a_whole_only() -> None:
    encoder = an_encoder("vit_b_32")
    with pytest.raises(OptionError, match="'vit_b_32' has no blocks"):
        unfreeze(encoder, UnfreezeConfig(blocks=1))
    unfreeze(encoder, UnfreezeConfig(blocks="all"))
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_more_blocks_than_there_are_cannot_be_unfrozen() -> None:
    with pytest.raises(OptionError, match="has 7 blocks; 8 cannot"):
        unfreeze(an_encoder(), UnfreezeConfig(blocks=8))
