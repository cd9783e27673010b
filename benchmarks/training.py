"""What training costs beside what its features cost: 20 epochs on cached features against computing them once.

    python -m benchmarks.training ../shared/data/fight

CPU-seconds of this process over the first 200 clips, at the defaults of `vidseq train`.
"""

import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from training.data.clips import read_clips
from training.data.dataset import load_dataset
from training.data.features import FeatureExtractor
from training.loop.fit import fit
from training.options import Options, configure
from vidseq.encoder import Encoder, load_default_weights


def main() -> None:
    folder = read_clips(Path(sys.argv[1]))
    clips = tuple(islice(folder.clips, 200))
    config, settings = configure(
        Options(epochs=20, patience_epochs=20),
        action_labels=folder.action_labels,
        frame_labels=folder.frame_labels,
        background=folder.background,
    )
    encoder = Encoder(config.encoder)
    load_default_weights(encoder)
    with tempfile.TemporaryDirectory() as cache:
        extractor = FeatureExtractor(encoder, config=config, cache=Path(cache))
        rows = []
        for name in ("features, computed", "features, from the cache"):
            begun = time.process_time()
            for clip in clips:
                extractor(clip.path)
            rows.append((name, time.process_time() - begun))
        dataset = load_dataset(folder, extractor, on_bad="stop", on_clip=lambda: None)
    examples = dataset.examples(range(len(clips)))
    for name, chosen in (("20 epochs, gru", config), ("20 epochs, mean-pool", config.baseline())):
        begun = time.process_time()
        fit(examples, examples[:40], config=chosen, settings=settings, run_file=None, on_epoch=lambda _: None)
        rows.append((name, time.process_time() - begun))
    print(f"{len(clips)} clips, {sum(len(e.feature_TD) for e in examples)} sampled frames\n")
    print("| | CPU-seconds | of the features |\n|---|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.1f} | {seconds / rows[0][1]:.3f} |")


if __name__ == "__main__":
    main()
