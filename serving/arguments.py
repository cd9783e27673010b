"""What a Serve config file says under `args` of each application. Knows neither Ray nor torch."""

import logging
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from serving import request_log
from serving.finished import Observer
from serving.jobs.settings import JobSettings
from serving.once.kept import OnceSettings
from serving.sessions import SessionSettings
from serving.uploads.table import UploadSettings
from serving.usage.table import UsageSettings
from serving.web_settings import WebSettings
from vidseq.config import Config, Limits, PositiveSeconds

SERVICE, CONTROL = "service", "control"  # the applications' names


class RequestLog(Config):
    """Where a line goes for each request that is over (serving.request_log): into Serve's own log, in its encoding, or
    in the `form` that is named into a `pipe`, of one machine; with `form` off, nowhere.
    """

    form: request_log.Form | None = None
    pipe: Path | None = None

    def observer(self) -> Observer:
        if self.form == "off":
            return request_log.unlogged
        if self.form is None or self.pipe is None:
            return request_log.to_logger(logging.getLogger("ray.serve"))
        return request_log.to_pipe(self.pipe, self.form)


class ServiceArgs(Config):
    """What a Serve config file says under `args` of the service. `model` is a folder on every node, and so are those of
    `also`: other models that see videos as it does, or folders of such models. All share one pass of the backbone.

    `keys` is a file of API keys (serving.keys) on every node, of which nothing here is secret; to be `open` to all is
    said in so many words.

    Videos are decoded in a sandbox (vidseq.sandbox). With `require_sandbox` nothing is, unless the kernel of the node
    offers all that confines it; without, the log says what is missing. With `require_signature`, files of public keys,
    a model is served only if one of them has signed it (`vidseq sign`).

    A replica of whose model nothing has come for more than `stuck_seconds`, while somebody waits, is replaced.

    Where sessions are kept (serving.store), where all else that lasts (serving.database), and the keys that seal both
    (serving.sealing) are told by the environment, as VIDSEQ_SESSION_STORE, VIDSEQ_DATABASE and VIDSEQ_SESSION_KEYS: a
    config file is shown by Ray's dashboard. VIDSEQ_UPLOADS is the folder of files that come in pieces, which all nodes
    share; without it there is one beside a SQLite. Of a Redis that keeps sessions, or of the one that VIDSEQ_RATE_STORE
    names, all replicas together count what keys do (serving.rates).
    """

    model: str
    also: tuple[str, ...] = ()
    keys: Path | None = None
    open: bool = False
    name: str | None = None
    device: str = "cpu"
    require_sandbox: bool = False
    stuck_seconds: PositiveSeconds = 60.0
    require_signature: Annotated[tuple[Path, ...], Field(min_length=1)] | None = None
    limits: Limits = Limits()
    web: WebSettings = WebSettings()
    sessions: SessionSettings = SessionSettings()
    log: RequestLog = RequestLog()
    once: OnceSettings = OnceSettings()
    uploads: UploadSettings = UploadSettings()
    jobs: JobSettings = JobSettings()
    usage: UsageSettings = UsageSettings()

    @model_validator(mode="after")
    def _closed_or_open(self) -> Self:
        if (self.keys is not None) is self.open:
            raise ValueError("either keys, a file that `vidseq keys create` makes, or open: true is needed")
        return self


class ControlArgs(Config):
    """What a Serve config file says under `args` of the control. `service` is the name of that application.

    Its replicas have jobs done, of which `jobs` says how; that of the service is the same.
    """

    service: str = SERVICE
    ready_timeout_seconds: PositiveSeconds = 3.0
    jobs: JobSettings = JobSettings()
    web: WebSettings = WebSettings()
    log: RequestLog = RequestLog()
