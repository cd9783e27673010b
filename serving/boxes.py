"""Whether videos can be decoded here, in the sandbox and under the limits of this service. Knows neither HTTP nor Ray.

The canary clip is decoded when the service starts, after a limit has changed, while it fails, and now and then.
"""

import threading
import time

from vidseq.config import Limits
from vidseq.errors import OptionError
from vidseq.sandbox.box import Confinement, Sandbox
from vidseq.sandbox.confine import in_words

PROOF_SECONDS = 30.0  # for so long one canary clip speaks for those after it


class Boxes:
    """A sandbox and what was last found of it. `why_not` may be asked by any thread, as often as anybody likes."""

    def __init__(self, sandbox: Sandbox, limits: Limits, *, proof_seconds: float = PROOF_SECONDS) -> None:
        self.sandbox = sandbox
        self.limits = limits
        self._proof_seconds = proof_seconds
        self._lock = threading.Lock()
        self._proved: tuple[Limits, float] | None = None  # the limits, and when

    def why_not(self) -> str | None:
        """Why no video can be decoded; None where the canary clip was decoded, under these limits, a moment ago."""
        with self._lock:
            if self._proved is not None:
                limits, at_seconds = self._proved
                if limits == self.limits and time.monotonic() - at_seconds < self._proof_seconds:
                    return None
            confinement = self.sandbox.prove(self.limits)
            self._proved = (self.limits, time.monotonic()) if confinement.failure is None else None
            return None if confinement.failure is None else confinement.in_words()


def confinement_of(sandbox: Sandbox, limits: Limits, *, required: bool) -> Confinement:
    """What a service on this machine will have.

    Raises:
        OptionError: the canary clip cannot be decoded; or `required`, and this kernel does not offer all of it.
    """
    confinement = sandbox.prove(limits)
    if confinement.failure is not None:
        raise OptionError(confinement.in_words())
    if required and confinement.missing:
        raise OptionError(f"--require-sandbox: this kernel does not offer {in_words(confinement.missing)}")
    return confinement
