"""Temperatures that make the running action's score a probability, by how much of a clip was seen. Knows no models.

Every answer carries scores that were divided by them, and thresholds are found on such scores.

What is said after half a second deserves less trust than what is said after eight: each stretch of elapsed time has a
temperature of its own by which logits are divided (arxiv:1706.04599), found on clips that the model did not learn from.

    0     0.5     1        2              4                          8          seconds since the first sampled frame
    [ T0  )[ T1  )[   T2   )[     T3      )[           T4            )[  T5 ...

A stretch that fewer than `MIN_CLIPS` clips reach belongs to the one before it. Few clips can look surer or less sure
than they are by chance, so a temperature away from 1 has to pay: the penalty is that of a log-normal prior around 1,
`PRIOR_SPREAD` wide. On the clips themselves the likelihood therefore never gets worse than with 1, and with few of them
the temperature stays near it. Frames of one clip are no independent witnesses: each clip counts once in a stretch.
Where a model says several actions, the likelihood of a clip is the product of its actions'.

Shape letters: T frames of one clip, N frames of all clips, A action labels, S stretches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.measure.metrics.reliability import expected_calibration_error
from vidseq.config import Calibration
from vidseq.naming import probabilities, stretch_of, temperatures_at

Floats = NDArray[np.float64]

STARTS_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
MIN_CLIPS = 10
# A temperature of 1.25, or of 1/1.25, costs half a nat of likelihood. Where scores were right already (drawn 30 times),
# what 10 to 40 clips found made other clips less likely by 0.003 nats (at worst 0.03); a spread of 2, by 0.03 (0.4).
PRIOR_SPREAD = math.log(1.25)


@dataclass(frozen=True, eq=False)
class Course:
    """One clip's running action: the logits after each sampled frame, their times, and what it should be.

    `target_A` is that of training.data.example: 1 for each action that the clip shows; None where nobody has said.
    """

    seconds_T: Floats
    action_logits_TA: NDArray[np.float32]
    target_A: Tensor | None


@dataclass(frozen=True)
class Stretch:
    """What a temperature does from `start_seconds` on, to the negative log-likelihood and the calibration error.

    Before and after, on the very clips it was fitted to: elsewhere `after` will be less good.
    """

    start_seconds: float
    num_clips: int
    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Calibrated:
    """What was found, on how many clips, and what it does in each stretch of time."""

    calibration: Calibration
    num_clips: int
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, eq=False)
class _Frames:
    """The frames of all clips; in a stretch the weights of one clip's frames sum to 1."""

    action_logits_NA: Tensor
    target_NA: Tensor
    elapsed_N: Floats
    stretch_N: Tensor
    weight_N: Tensor
    several: bool


def calibrate(courses: Sequence[Course], *, several: bool = False) -> Calibrated | None:
    """The temperatures of these clips' stretches; None where fewer than `MIN_CLIPS` of them have a label.

    Of a model that says nothing before it has seen the whole clip, give the last frame of each: then there is one
    temperature, for any time.
    """
    courses = [course for course in courses if course.target_A is not None]
    starts = _starts([_elapsed_T(course) for course in courses])
    if not starts:
        return None
    frames = _frames(courses, starts, several=several)
    calibration = Calibration(elapsed_seconds=starts, temperatures=_temperatures(frames, num_stretches=len(starts)))
    stretches = tuple(_stretch(frames, calibration, number) for number in range(len(starts)))
    return Calibrated(calibration, len(courses), stretches)


def _elapsed_T(course: Course) -> Floats:
    elapsed_T: Floats = course.seconds_T - course.seconds_T[0]
    return elapsed_T


def _starts(elapsed: Sequence[Floats]) -> tuple[float, ...]:
    """Where stretches begin in which enough clips have a frame; the last first, as a sparse one joins its earlier."""
    starts: list[float] = []
    end = math.inf
    for start in reversed(STARTS_SECONDS):
        num_clips = sum(bool(((start <= elapsed_T) & (elapsed_T < end)).any()) for elapsed_T in elapsed)
        if num_clips >= MIN_CLIPS:
            starts.insert(0, start)
            end = start
    return tuple(starts)


def _frames(courses: Sequence[Course], starts: tuple[float, ...], *, several: bool) -> _Frames:
    stretches = [stretch_of(_elapsed_T(course), starts) for course in courses]
    weights = [1.0 / np.bincount(stretch_T)[stretch_T] for stretch_T in stretches]
    targets = [c.target_A.expand(len(c.seconds_T), -1) for c in courses if c.target_A is not None]
    return _Frames(
        action_logits_NA=torch.from_numpy(np.concatenate([course.action_logits_TA for course in courses])).double(),
        target_NA=torch.cat(targets).double(),
        elapsed_N=np.concatenate([_elapsed_T(course) for course in courses]),
        stretch_N=torch.from_numpy(np.concatenate(stretches)),
        weight_N=torch.from_numpy(np.concatenate(weights)),
        several=several,
    )


def _temperatures(frames: _Frames, *, num_stretches: int) -> tuple[float, ...]:
    """All at once: they do not touch each other."""
    log_temperature_S = torch.zeros(num_stretches, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature_S], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        cooled_NA = frames.action_logits_NA * torch.exp(-log_temperature_S)[frames.stretch_N, None]
        nll_N = _nll_N(cooled_NA, frames.target_NA, several=frames.several)
        total = (frames.weight_N * nll_N).sum() + (log_temperature_S**2).sum() / (2 * PRIOR_SPREAD**2)
        total.backward()
        return total

    optimizer.step(loss)
    return tuple(log_temperature_S.detach().exp().tolist())


def _stretch(frames: _Frames, calibration: Calibration, number: int) -> Stretch:
    here_N = frames.stretch_N == number
    logits_NA, target_NA, weight_N = frames.action_logits_NA[here_N], frames.target_NA[here_N], frames.weight_N[here_N]
    temperature_N = temperatures_at(frames.elapsed_N[here_N.numpy()], calibration)
    (nll_before, ece_before), (nll_after, ece_after) = (
        _figures(logits_NA / by_N[:, None], target_NA, weight_N, several=frames.several)
        for by_N in (torch.ones_like(temperature_N), temperature_N)
    )
    return Stretch(
        start_seconds=calibration.elapsed_seconds[number],
        num_clips=round(weight_N.sum().item()),
        temperature=calibration.temperatures[number],
        nll_before=nll_before,
        nll_after=nll_after,
        ece_before=ece_before,
        ece_after=ece_after,
    )


def _figures(logits_NA: Tensor, target_NA: Tensor, weight_N: Tensor, *, several: bool) -> tuple[float, float]:
    """Negative log-likelihood, and expected calibration error: of the best action, or of every one (several)."""
    nll_N = _nll_N(logits_NA, target_NA, several=several)
    score_NA = probabilities(logits_NA, several=several)
    score_NK, index_NK = (score_NA, torch.arange(score_NA.shape[1])[None]) if several else score_NA.max(1, keepdim=True)
    right_NK = target_NA.gather(1, index_NK.expand_as(score_NK)) == 1
    weight_NK = weight_N[:, None].expand_as(score_NK)
    error = expected_calibration_error(
        score_NK.flatten().numpy(), right_NK.flatten().numpy(), weight_NK.flatten().numpy()
    )
    return ((weight_N * nll_N).sum() / weight_N.sum()).item(), error


def _nll_N(logits_NA: Tensor, target_NA: Tensor, *, several: bool) -> Tensor:
    """How unlikely the truth of each row was."""
    if several:
        return functional.binary_cross_entropy_with_logits(logits_NA, target_NA, reduction="none").sum(dim=1)
    return functional.cross_entropy(logits_NA, target_NA, reduction="none")
