"""vidseq on Ray Serve: one thin class per deployment, and a Ray of one machine. Knows no routes.

POST /v1/classify  ->  proxy  ->  Service                      takes the bytes, decodes and computes
GET  /readyz       ->  proxy  ->  Control  ->  Service.ready   by handle: a few bytes, never a body

A Serve config file names the builders, `serving.app:build_service` and `serving.app:build_control`, and gives their
arguments. A replica computes with as many threads as it is given CPUs (Ray sets OMP_NUM_THREADS to `num_cpus`).
"""

import asyncio
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import ray
from fastapi import FastAPI
from pydantic import model_validator
from ray import serve
from ray.exceptions import RayError
from ray.serve import metrics
from ray.serve.exceptions import RayServeException

from serving import figures
from serving.keyring import KeyRing
from serving.keys import list_keys
from serving.sealing import Tokens, load_keys
from serving.sessions import Sessions, SessionSettings
from serving.store import open_store
from serving.web import WebSettings, create_control_app, create_service_app
from vidseq.config import Config, Limits, PositiveSeconds
from vidseq.errors import OptionError
from vidseq.messages import Applied
from vidseq.schemas import Prediction

if TYPE_CHECKING:  # with it comes torch
    from vidseq.live import Live

SERVICE, CONTROL = "service", "control"  # the applications' names
ROUTE_PREFIX = "/v1"
MAX_ONGOING = 512  # Serve's own gate stays wide open: half-open uploads must block nobody; web answers 429 long before
LAST_RESORT_SECONDS = 30.0  # Serve's time limit after web's own
OBJECT_STORE_BYTES = 80 * 2**20  # nearly Ray's least: nothing large crosses a handle
LATENCIES_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]
QUIET = {"log_level": "WARNING", "enable_access_log": False}


logger = logging.getLogger("ray.serve")  # where a replica's log goes

STORE, KEYS = "VIDSEQ_SESSION_STORE", "VIDSEQ_SESSION_KEYS"  # in the environment of every node; both are secrets


class ServiceArgs(Config):
    """What a Serve config file says under `args` of the service. `model` is a folder on every node.

    `keys` is a file of API keys (serving.keys) on every node, of which nothing here is secret; to be `open` to all is
    said in so many words.

    Videos are decoded in a sandbox (vidseq.sandbox). With `require_sandbox` nothing is, unless the kernel of the node
    offers all that confines it; without, the log says what is missing.

    Where sessions are kept (serving.store) and the keys that seal them (serving.sealing) are told by the environment,
    as VIDSEQ_SESSION_STORE and VIDSEQ_SESSION_KEYS: a config file is shown by Ray's dashboard.
    """

    model: str
    keys: Path | None = None
    open: bool = False
    name: str | None = None
    device: str = "cpu"
    require_sandbox: bool = False
    limits: Limits = Limits()
    web: WebSettings = WebSettings()
    sessions: SessionSettings = SessionSettings()

    @model_validator(mode="after")
    def _closed_or_open(self) -> Self:
        if (self.keys is not None) is self.open:
            raise ValueError("either keys, a file that `vidseq keys create` makes, or open: true is needed")
        return self


class ControlArgs(Config):
    """What a Serve config file says under `args` of the control. `service` is the name of that application."""

    service: str = SERVICE
    ready_timeout_seconds: PositiveSeconds = 3.0
    web: WebSettings = WebSettings()


class Figures:
    """What a replica counts; Ray's agent on each node exports it as `ray_vidseq_...`."""

    def __init__(self) -> None:
        tags: Any = ("route", "status")  # Any: Ray writes Tuple[str] for a tuple of any length
        self._requests = metrics.Counter("vidseq_requests", "Requests answered.", tag_keys=tags)
        self._seconds = metrics.Histogram(
            "vidseq_request_seconds", "From headers to answer.", LATENCIES_SECONDS, tag_keys=("route",)
        )
        self._frames = metrics.Counter("vidseq_frames_labelled", "Frames that the model has seen.")
        self._decoded = metrics.Counter("vidseq_frames_decoded", "Frames decoded.")
        self._dropped = metrics.Counter("vidseq_frames_dropped", "Frames of streams that were left out.")
        self._push_seconds = metrics.Histogram(
            "vidseq_push_seconds", "From a push of a stream to its labels.", LATENCIES_SECONDS
        )
        self._queued = metrics.Histogram(
            "vidseq_queued_seconds", "A video's wait for places in batches.", LATENCIES_SECONDS
        )

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """The Observer of serving.web. The method is no tag: clients may invent methods."""
        path = f"{ROUTE_PREFIX}{route}" if route else "none"
        self._requests.inc(tags={"route": path, "status": str(status)})
        self._seconds.observe(max(seconds, 1e-6), tags={"route": path})

    def pushed(self, applied: Applied, *, seconds: float) -> None:
        """The PushObserver of serving.web."""
        if applied.labels:
            self._frames.inc(len(applied.labels))
        self._push_seconds.observe(max(seconds, 1e-6))
        dropped = sum(notice.num_frames for notice in applied.notices if notice.effect == "dropped")
        if dropped:
            self._dropped.inc(dropped)

    def labelled(self, prediction: Prediction) -> None:
        self._frames.inc(prediction.sampled.num_frames)
        self._decoded.inc(prediction.video.frames_decoded)
        self._queued.observe(max(prediction.timings.queued_ms / 1000, 1e-6))


class Service:
    """A model behind HTTP. It is up once it has decoded the sandbox's canary clip and labelled its own."""

    def __init__(self, args: ServiceArgs) -> None:
        # These bring torch and OpenCV, which no other process needs that imports this module.
        from serving.boxes import Boxes, confinement_of
        from serving.labeller import Labeller
        from vidseq.sandbox.box import Sandbox

        self._args = args
        self._keys = None if args.keys is None else KeyRing(args.keys)
        if args.keys is not None:
            list_keys(args.keys)  # what is wrong with the file is said now, and not to the first caller
        self._figures = Figures()
        self._boxes = Boxes(Sandbox(required=args.require_sandbox), args.limits)
        confinement = confinement_of(self._boxes.sandbox, args.limits, required=args.require_sandbox)
        logger.log(logging.WARNING if confinement.missing else logging.INFO, confinement.in_words())
        self._labeller = Labeller(
            Path(args.model),
            name=args.name,
            device=args.device,
            limits=args.limits,
            sandbox=self._boxes.sandbox,
        )
        self._labeller.answer_canary()
        live = self._labeller.live
        self._sessions = None if live is None else open_sessions(live, self._args.sessions)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor, in the loop that will run the application."""
        from serving.decoding import decode  # brings OpenCV

        return create_service_app(
            classify=self._classify,
            models=lambda: self._labeller.models,
            sessions=self._sessions,
            decode=functools.partial(
                decode, picture=self._labeller.picture, limits=self._args.limits, sandbox=self._boxes.sandbox
            ),
            keys=self._keys,
            settings=self._args.web,
            observe=self._figures.answered,
            observe_push=self._figures.pushed,
            prefix="",  # Serve has taken /v1 off
        )

    def _classify(self, *video: Any, **options: Any) -> Prediction:
        prediction = self._labeller.classify(*video, **options)
        self._figures.labelled(prediction)
        return prediction

    async def ready(self) -> str | None:
        """Why no video can be labelled now, or None: the canary was labelled before this can be called."""
        self._labeller.check_alive()
        return await asyncio.to_thread(self._boxes.why_not)

    def check_health(self) -> None:
        """Called by Serve now and then: to raise is to be replaced."""
        self._labeller.check_alive()


class Control:
    """What must answer while the service is full or down."""

    def __init__(self, args: ControlArgs) -> None:
        self._args = args

    async def __serve_build_asgi_app__(self) -> FastAPI:
        self._loop = asyncio.get_running_loop()
        return create_control_app(ready=self._why_not_ready, metrics=self._metrics, settings=self._args.web)

    def _why_not_ready(self) -> str | None:
        """None if some replica of the service has labelled its canary clip and can decode now. Called in a thread."""
        timeout_seconds = self._args.ready_timeout_seconds
        try:
            return asyncio.run_coroutine_threadsafe(self._ask(timeout_seconds), self._loop).result()
        except TimeoutError:
            return f"no replica answers within {timeout_seconds:g} seconds: it loads its model, or is too busy"
        except (RayError, RayServeException) as error:
            return f"the service is down: {type(error).__name__}"

    async def _ask(self, timeout_seconds: float) -> str | None:
        async with asyncio.timeout(timeout_seconds):
            reason: str | None = await serve.get_deployment_handle(
                "Service", app_name=self._args.service
            ).ready.remote()
            return reason

    def _metrics(self) -> bytes:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        return figures.gathered([(node["NodeManagerAddress"], node["MetricsExportPort"]) for node in nodes])


def open_sessions(live: "Live", settings: SessionSettings) -> Sessions:
    """Sessions as the environment of this node says.

    Raises:
        OptionError: it says nothing or something wrong, or names one machine's file for a cluster of several.
    """
    url, keys = (os.environ.get(name, "") for name in (STORE, KEYS))
    if not url or not keys:
        raise OptionError(f"{STORE} and {KEYS} are needed in the environment of every node: see deploy/")
    if url.startswith("sqlite") and sum(node["Alive"] for node in ray.nodes()) > 1:
        raise OptionError(f"{STORE} is a file of one machine, and this cluster has several: name a Redis")
    sealing = load_keys(keys)
    store = open_store(url, lifetimes=settings.lifetimes, keys=sealing)
    return Sessions(live, store=store, tokens=Tokens(sealing), settings=settings)


def build_service(args: ServiceArgs) -> serve.Application:
    """The application that takes bodies: route_prefix /v1."""
    return _service(args, num_cpus=1).bind(args)


def build_control(args: ControlArgs) -> serve.Application:
    """The application that answers for the service: route_prefix /."""
    return _deployment(Control, num_cpus=0, num_gpus=0).bind(args)


def _service(args: ServiceArgs, *, num_cpus: float) -> serve.Deployment:
    return _deployment(Service, num_cpus=num_cpus, num_gpus=1 if args.device.startswith("cuda") else 0)


def _deployment(kind: type, *, num_cpus: float, num_gpus: int) -> serve.Deployment:
    """What a Serve config file does not say otherwise."""
    wrap: Callable[[type], serve.Deployment] = serve.deployment(
        name=kind.__name__,
        max_ongoing_requests=MAX_ONGOING,
        graceful_shutdown_wait_loop_s=0.5,
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
    )
    return wrap(serve.ingress()(kind))


def start(args: ServiceArgs, *, host: str, port: int, num_replicas: int, temp_dir: Path) -> None:
    """A Ray of this process's own and both applications on it; returns when both run. `stop()` ends what was begun.

    The machine's CPUs are shared out among `num_replicas` of the service.
    """
    num_cpus = os.cpu_count() or 1
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=num_cpus,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.WARNING,
        _temp_dir=str(temp_dir),
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    web_seconds = args.web.body_timeout_seconds + args.web.request_timeout_seconds
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": host, "port": port, "request_timeout_s": web_seconds + LAST_RESORT_SECONDS},
        logging_config=QUIET,
    )
    share = num_cpus / num_replicas
    service = _service(args, num_cpus=share if share < 1 else int(share)).options(num_replicas=num_replicas).bind(args)
    control = build_control(ControlArgs(web=args.web))
    serve.run_many(
        [serve.RunTarget(control, CONTROL, "/", QUIET), serve.RunTarget(service, SERVICE, ROUTE_PREFIX, QUIET)]
    )


def stop() -> None:
    """Let the applications finish what they are answering, then end every process that `start` started."""
    if ray.is_initialized() and SERVICE in serve.status().applications:
        serve.delete(SERVICE)  # waits; serve.shutdown() would also kill Serve's own actors, of which Ray complains
    ray.shutdown(wait_for_processes=True)
