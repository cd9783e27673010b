"""What a caller hears of the database. Knows neither SQLAlchemy nor HTTP."""

from vidseq.errors import VidseqError


class DatabaseDown(VidseqError):
    """The database did not do what it was asked to; it may next time.

    Whoever asks the service hears no more than that; `reason`, what the database said itself, is for its operator.
    """

    code = "database/down"

    def __init__(self, reason: object) -> None:
        super().__init__("the database of this service does not do what it is asked to now: ask again later")
        self.reason = " ".join(str(reason).split())
