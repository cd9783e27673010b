"""Training runs by name: each is a function that returns its options, for a person to change. Knows not how it is run.

`vidseq train --recipe NAME`; docs/results.md has the figures and the commands that make them.
"""

from collections.abc import Callable

from training.options import Options


def default() -> Options:
    """A small recurrence on frozen features of single frames, for a few hundred clips.

    With the features cached, seconds to a minute on two cores; computing them costs one pass of the backbone over
    every sampled frame, 18 to 30 CPU-ms each.
    """
    return Options()


def motion() -> Options:
    """What moved, for actions that a single frame does not tell: fights, falls, throws.

    Larger pictures, twice as many of them, and differences of the backbone's maps beside its features; clips seen in
    their middle and as a whole while learning, and mixed with each other; all of them learnt from, for few epochs. It
    reaches about ten points more than `default` on clips of fights. Features cost 50 CPU-ms a frame, twice while
    learning; training on a few hundred clips takes a minute or less.
    """
    return Options(
        frames_per_second=16.0,
        size=320,
        motion=("last", "middle"),
        augment_frames=("wide",),
        num_views=2,
        normalisation="standard",
        readout="statistics",
        mixup=1.0,
        epochs=10,
        stop_early=False,
    )


def segments() -> Options:
    """A label for every frame of whole files: which action goes on, and from when to when.

    Two layers that read each clip in both directions, so it labels files and no streams; what moved tells where an
    action begins and ends. All clips are learnt from. Features cost 50 CPU-ms a frame; the rest a minute or two.
    """
    return Options(size=320, motion=("last", "middle"), bidirectional=True, num_layers=2, epochs=40, stop_early=False)


RECIPES: dict[str, Callable[[], Options]] = {"default": default, "motion": motion, "segments": segments}
