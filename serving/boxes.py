"""Whether videos can be decoded here, in the sandbox and under the limits of this service. Knows neither HTTP nor Ray.

The canary clip is decoded when the service starts, after a limit has changed, while it fails, and now and then.
"""

import threading
import time
from dataclasses import dataclass

from vidseq.config import Limits
from vidseq.errors import OptionError
from vidseq.sandbox.box import Confinement, Sandbox
from vidseq.sandbox.confine import in_words

PROOF_SECONDS = 30.0  # for so long one canary clip speaks for those after it
FAILURE_SECONDS = 1.0  # and so long one that failed: to fail may take half a minute, and many ask


@dataclass(frozen=True)
class _Found:
    """What a canary clip has shown, under which limits, and when, by time.monotonic."""

    why_not: str | None
    limits: Limits
    at_seconds: float


class Boxes:
    """A sandbox and what was last found of it. `why_not` may be asked by any thread, as often as anybody likes."""

    def __init__(self, sandbox: Sandbox, limits: Limits, *, proof_seconds: float = PROOF_SECONDS) -> None:
        self.sandbox = sandbox
        self.limits = limits
        self._proof_seconds = proof_seconds
        self._lock = threading.Lock()
        self._found: _Found | None = None

    def why_not(self) -> str | None:
        """Why no video can be decoded; None where the canary clip was decoded, under these limits, a moment ago.

        While one thread tries it, the others are told what was found last, and wait only where nothing was.
        """
        found = self._found
        if found is not None and self._still_holds(found):
            return found.why_not
        if not self._lock.acquire(blocking=found is None):
            assert found is not None
            return found.why_not
        try:
            if self._found is found or self._found is None or not self._still_holds(self._found):
                limits, confinement = self.limits, self.sandbox.prove(self.limits)
                why_not = None if confinement.failure is None else confinement.in_words()
                self._found = _Found(why_not, limits, time.monotonic())
            return self._found.why_not
        finally:
            self._lock.release()

    def _still_holds(self, found: "_Found") -> bool:
        holds_seconds = self._proof_seconds if found.why_not is None else FAILURE_SECONDS
        return found.limits == self.limits and time.monotonic() - found.at_seconds < holds_seconds


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
