"""`client.webhooks`: whether a message is a service's, and what it says. Asks nobody."""

import os
from collections.abc import Mapping

from pydantic import ValidationError

from vidseq.errors import OptionError, WebhookRefused
from vidseq.jobs import JobEvent
from vidseq.webhooks import TOLERANCE_SECONDS, check, new_secret

SECRET_VARIABLE = "VIDSEQ_WEBHOOK_SECRET"


class Webhooks:
    """What a receiver of webhooks needs."""

    def new_secret(self) -> str:
        """A secret for a `Webhook`, from 32 random bytes. Keep it: the receiver checks messages with it."""
        return new_secret()

    def verify(
        self,
        body: bytes,
        headers: Mapping[str, str],
        *,
        secret: str | None = None,
        tolerance_seconds: float = TOLERANCE_SECONDS,
    ) -> JobEvent:
        """What a message says, if it was signed with `secret` (VIDSEQ_WEBHOOK_SECRET if not given) and is new.

        `body` are the bytes as they came, before anything has parsed them. A message may come more than once: its
        header `webhook-id` is the same then.

        Errors: WebhookRefused; OptionError for a secret that is none.
        """
        secret = secret or os.environ.get(SECRET_VARIABLE)
        if not secret:
            raise OptionError(f"a secret is needed: pass it, or set {SECRET_VARIABLE}")
        check(body, headers, secret=secret, tolerance_seconds=tolerance_seconds)
        try:
            return JobEvent.model_validate_json(body)
        except ValidationError:
            raise WebhookRefused("the message is signed, and says nothing that is known here") from None
