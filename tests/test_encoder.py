"""The CNN: pixels in as bytes, features out, weights that are checked."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from vidseq.backbones import build_config
from vidseq.config import PACKAGED
from vidseq.encoder import Encoder, load_default_weights
from vidseq.errors import OptionError


def some_pixels(frames: int = 2, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (frames, size, size, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def packaged() -> Encoder:
    encoder = Encoder(build_config())
    load_default_weights(encoder)
    return encoder


def test_the_packaged_backbone_has_trained_weights_without_a_download(packaged: Encoder) -> None:
    statistics = [buffer for name, buffer in packaged.backbone.named_buffers() if name.endswith("running_var")]
    assert packaged.feature_size == 1280
    assert all(not torch.equal(variance, torch.ones_like(variance)) for variance in statistics)


@pytest.mark.parametrize(
    ("name", "feature_size"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("timm:resnet10t", 512)]
)
def test_a_backbone_by_name_is_cut_before_its_classifier(name: str, feature_size: int) -> None:
    encoder = Encoder(build_config(name, weights="none"))
    assert encoder.feature_size == feature_size
    assert encoder(some_pixels()).shape == (2, feature_size)


def test_a_frame_has_the_same_features_alone_and_in_a_batch(packaged: Encoder) -> None:
    pixels_NHWC = some_pixels(5)
    together_ND = packaged(pixels_NHWC)
    alone_ND = torch.cat([packaged(frame_HWC[None]) for frame_HWC in pixels_NHWC])
    torch.testing.assert_close(together_ND, alone_ND, atol=1e-4, rtol=1e-4)


def test_training_mode_does_not_change_a_frozen_encoder(packaged: Encoder) -> None:
    before_ND = packaged(some_pixels())
    packaged.train()
    assert torch.equal(packaged(some_pixels()), before_ND)
    assert not any(parameter.requires_grad for parameter in packaged.parameters())


@pytest.mark.parametrize(
    "name",
    [
        "resnet1800",
        "timm:nothing_like_this",
        "timm:resnet18.foo",
        "squeezenet1_0",
        "r3d_18",
        "fasterrcnn_resnet50_fpn",
        "fcn_resnet50",
    ],
)
def test_an_unusable_backbone_is_one_sentence(name: str) -> None:
    with pytest.raises(OptionError, match=name.removeprefix("timm:")):
        Encoder(build_config(name, weights="none"))


def test_weights_come_from_a_local_file(tmp_path: Path, packaged: Encoder) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in packaged.backbone.state_dict().items()}, path)
    encoder = Encoder(build_config(PACKAGED, weights=str(path)))
    load_default_weights(encoder)
    assert torch.equal(encoder(some_pixels()), packaged(some_pixels()))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "timm:test_efficientnet"])
def test_a_whole_network_with_its_classifier_is_cut_as_it_is_loaded(tmp_path: Path, name: str, wrapped: bool) -> None:
    if name.startswith("timm:"):
        network = timm.create_model(name.removeprefix("timm:"))
    else:
        network = torchvision.models.get_model(name, weights=None)
    path = tmp_path / "network.pth"
    torch.save({"epoch": 3, "state_dict": network.state_dict()} if wrapped else network.state_dict(), path)
    encoder = Encoder(build_config(name, weights=str(path)))
    load_default_weights(encoder)
    loaded = encoder.backbone.state_dict()
    assert len(loaded) < len(network.state_dict())
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in loaded.items())


def test_weights_that_do_not_fit_or_are_none_are_refused(tmp_path: Path) -> None:
    fitting_nothing, nonsense = tmp_path / "a.safetensors", tmp_path / "b.pth"
    save_file({"x": torch.zeros(1)}, fitting_nothing)
    nonsense.write_bytes(b"not weights")
    a_list, a_tensor, counted = tmp_path / "c.pth", tmp_path / "d.pth", tmp_path / "e.pth"
    torch.save([torch.zeros(1)], a_list)
    torch.save(torch.zeros(1), a_tensor)
    torch.save({"epoch": 3}, counted)
    for path in (fitting_nothing, nonsense, a_list, a_tensor, counted, tmp_path / "absent.pth"):
        with pytest.raises(OptionError, match=path.name):
            load_default_weights(Encoder(build_config(weights=str(path))))


def test_bfloat16_features_are_close_to_float32(packaged: Encoder) -> None:
    reduced = Encoder(build_config(precision="bfloat16"))
    load_default_weights(reduced)
    full_ND, reduced_ND = packaged(some_pixels()), reduced(some_pixels())
    assert reduced_ND.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(full_ND, reduced_ND).min() > 0.98
