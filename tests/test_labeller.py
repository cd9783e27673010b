"""A loaded model that answers many requests at once."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from serving.labeller import Labeller
from tests.test_serving import assert_same
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.errors import TooManyFrames
from vidseq.schemas import Prediction
