"""What a caller hears of jobs. Knows no HTTP."""

from vidseq.errors import VidseqError


class JobNotFound(VidseqError):
    code = "job/not-found"


class TooManyItems(VidseqError):
    """One job asks for more than a job may."""

    code = "job/too-many-items"


class TooManyJobs(VidseqError):
    """One key has as many unfinished jobs as it may have."""

    code = "job/too-many"


class WebhookNotAllowed(VidseqError):
    """A webhook of a private address, or of no TLS, where the service allows none."""

    code = "webhook/not-allowed"
