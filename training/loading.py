"""The clips of a folder with their features, and a bar while these are computed. Knows nothing of what they are for."""

from typing import Literal

from training.data.clips import ClipFolder
from training.data.dataset import Dataset, load_dataset
from training.data.features import FeatureExtractor
from training.show import Show

OnBad = Literal["stop", "skip"]


def load_features(
    folder: ClipFolder, extractor: FeatureExtractor, *, num_views: int = 1, on_bad: OnBad, show: Show
) -> Dataset:
    """The dataset of a folder; what is left out is warned of.

    Raises:
        DatasetError: as `load_dataset`.
    """
    with show.progress("features", total=num_views * len(folder.clips)) as advance:
        dataset = load_dataset(folder, extractor, num_views=num_views, on_bad=on_bad, on_clip=lambda: advance(""))
    for failure in dataset.failed:
        show.warn(f"left out {failure.path}: {failure.error}")
    return dataset
