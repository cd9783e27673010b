"""CNN and sequence model as one: the same scores as one after the other, and gradients into both."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tests.toy_models import toy_config, toy_model
from training.loop.joint import JointModel, mixed_precision_pays
from training.loop.unfreeze import unfreeze
from training.settings import UnfreezeConfig
from vidseq.checkpoint import load_checkpoint, save_checkpoint
from vidseq.model import SequenceModel, VideoModel


def a_joint_model(*, mixed_precision: bool = False) -> JointModel:
    model = toy_model(toy_config())
    return JointModel(model.encoder, model.sequence, mixed_precision=mixed_precision)


def clips(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (n, 32, 32, 3), generator=generator, dtype=torch.uint8) for n in lengths]


def loss(model: JointModel, pixels: list[Tensor]) -> Tensor:
    lengths_B = torch.tensor([len(clip) for clip in pixels])
    scores, _ = model(pad_sequence(pixels, batch_first=True), None, lengths_B)
    last_BA = scores.action_logits_BTA[torch.arange(len(pixels)), lengths_B - 1]
    return torch.nn.functional.cross_entropy(last_BA, torch.arange(len(pixels)))


def test_a_padded_batch_of_pixels_is_scored_as_each_clip_alone() -> None:
    model = a_joint_model()
    pixels, alone = clips(5, 2, 3), VideoModel(model.encoder, model.sequence)
    lengths = [len(clip) for clip in pixels]
    scores, _ = model(pad_sequence(pixels, batch_first=True, padding_value=255), None, torch.tensor(lengths))
    for together, clip in zip(scores.split(lengths), pixels, strict=True):
        expected, _ = alone(clip)
        torch.testing.assert_close(together.action_logits_BTA, expected.action_logits_BTA, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.frame_logits_BTL, expected.frame_logits_BTL, atol=1e-5, rtol=1e-5)


def test_a_state_goes_in_and_comes_out() -> None:
    model, (clip,) = a_joint_model(), clips(6)
    whole, _ = model(clip[None])
    first, state = model(clip[None, :4])
    second, _ = model(clip[None, 4:], state)
    parts_BTL = torch.cat([first.frame_logits_BTL, second.frame_logits_BTL], dim=1)
    torch.testing.assert_close(parts_BTL, whole.frame_logits_BTL, atol=1e-5, rtol=1e-5)


def test_gradients_reach_both_parts_and_training_lowers_the_loss() -> None:
    model, pixels = a_joint_model(), clips(4, 3, 4)
    unfreeze(model.encoder, UnfreezeConfig(blocks=2))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    before = loss(model, pixels).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss(model, pixels).backward()
        optimizer.step()
    assert loss(model, pixels).item() < 0.5 * before


def test_in_mixed_precision_weights_and_gradients_stay_float32_and_close() -> None:
    gradients = []
    for mixed_precision in (False, True):
        model = a_joint_model(mixed_precision=mixed_precision)
        unfreeze(model.encoder, UnfreezeConfig(blocks="all"))
        torch.manual_seed(0)  # dropout
        loss(model.train(), clips(4, 3)).backward()
        assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in model.encoder.parameters())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.encoder.parameters()]))
    assert torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.95
    assert not torch.equal(gradients[0], gradients[1])


def test_a_cpu_is_not_asked_for_less_precision() -> None:
    assert not mixed_precision_pays(torch.device("cpu"))


@pytest.mark.gpu
def test_a_gpu_with_bfloat16_is(cuda: torch.device) -> None:
    assert mixed_precision_pays(cuda)


def test_a_trained_backbone_is_a_file_of_its_own_and_gives_the_same_scores_when_it_is_loaded(tmp_path: Path) -> None:
    config, model, (clip,) = toy_config(), a_joint_model(), clips(5)
    baseline = SequenceModel(config.baseline(), feature_size=model.encoder.feature_size)

    def save(name: str) -> Path:
        whole = VideoModel(model.encoder, model.sequence)
        save_checkpoint(
            tmp_path / name,
            config=config,
            model=whole,
            baseline=baseline,
            documents={"card.md": "# A toy"},
            version="1",
        )
        return tmp_path / name

    frozen = save("frozen")
    unfreeze(model.encoder, UnfreezeConfig(blocks=2, checkpoint_gradients=True))
    loss(model, [clip, clip]).backward()
    torch.optim.SGD([p for p in model.encoder.parameters() if p.requires_grad], lr=1.0).step()
    trained = save("trained")
    before, after = load_checkpoint(frozen), load_checkpoint(trained)
    assert after.trunk != before.trunk
    assert {p.name for p in frozen.glob("backbone-*")}.isdisjoint(p.name for p in trained.glob("backbone-*"))
    torch.testing.assert_close(after.model(clip)[0].frame_logits_BTL, model(clip[None])[0].frame_logits_BTL)
