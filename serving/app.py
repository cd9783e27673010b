"""vidseq on Ray Serve: one thin class per deployment, and a Ray of one machine. Knows no routes.

POST /v1/classify  ->  proxy  ->  Service                      takes the bytes, decodes and computes
GET  /readyz       ->  proxy  ->  Control  ->  Service.ready   by handle: a few bytes, never a body

A Serve config file names the builders, `serving.app:build_service` and `serving.app:build_control`, and gives their
arguments. Neither runs on a Ray that lets in whoever has no token (serving.locked). A replica computes with as many
threads as it is given CPUs (Ray sets OMP_NUM_THREADS to `num_cpus`).
"""

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from fastapi import FastAPI
from ray import serve

from serving.answering import Answering
from serving.arguments import CONTROL, SERVICE, ControlArgs, ServiceArgs
from serving.chores import Chore, Chores
from serving.control import LEAVING, Control, num_nodes
from serving.counters import Figures
from serving.drain import Drain
from serving.finished import Finished
from serving.jobs.execution import Execution, Item
from serving.jobs.queue import Outcome
from serving.keyring import KeyRing
from serving.keys import list_keys
from serving.local_ray import start_ray
from serving.locked import refuse_open_ray
from serving.parts import Frames
from serving.places import open_database, open_jobs, open_once, open_sessions, open_uploads, open_vault
from serving.rates import rates_of, store_of_rates
from serving.service_routes import Parts
from serving.uploads.uploads import Uploads
from serving.usage.ledger import Ledger
from serving.usage.table import UsageTable
from serving.web import create_service_app
from serving.whole import Whole
from vidseq.config import Sampling
from vidseq.container import Source
from vidseq.incoming import Incoming
from vidseq.schemas import Prediction

if TYPE_CHECKING:  # with them come torch and OpenCV
    from serving.labeller import Labeller
    from vidseq.sampling import Clock

ROUTE_PREFIX = "/v1"
MAX_ONGOING = 1024  # Serve's own gate stays wide open: half-open uploads must block nobody; web answers 429 long before
LAST_RESORT_SECONDS = 30.0  # Serve's time limit after web's own
OBJECT_STORE_BYTES = 80 * 2**20  # nearly Ray's least: nothing large crosses a handle
FOLLOW_SECONDS, STANDING_SECONDS = 2.0, 5.0
SWEEP_DECODERS_SECONDS = 30.0
SWEEP_SESSIONS_SECONDS, SWEEP_JOBS_SECONDS, SWEEP_USAGE_SECONDS = 60.0, 60.0, 3600.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}


logger = logging.getLogger("ray.serve")  # where a replica's log goes


class Service:
    """Models behind HTTP. It is up once it has decoded the sandbox's canary clip and labelled its own.

    Others may take their place, or come beside them, while it runs (serving.steer): see serving.answering.
    """

    def __init__(self, args: ServiceArgs) -> None:
        # These bring torch and OpenCV, which no other process needs that imports this module.
        from serving.boxes import Boxes, confinement_of
        from vidseq.sandbox.box import Sandbox

        refuse_open_ray()
        self._args = args
        self._keys = None if args.keys is None else KeyRing(args.keys)
        if args.keys is not None:
            list_keys(args.keys)  # what is wrong with the file is said now, and not to the first caller
        self._rates = rates_of(args.web.rates, url=store_of_rates(os.environ))
        self._figures = Figures()
        self._log = args.log.observer()
        self._boxes = Boxes(Sandbox(required=args.require_sandbox), args.limits)
        confinement = confinement_of(self._boxes.sandbox, args.limits, required=args.require_sandbox)
        logger.log(logging.WARNING if confinement.missing else logging.INFO, confinement.in_words())
        also = [*map(Path, args.also)]
        self._models = Answering(self._loaded, Path(args.model), also, told=self._figures.rolled_out)
        self._drain = Drain()
        nodes = num_nodes()
        database = open_database(num_nodes=nodes)
        self._once = open_once(database, args.once)
        self._uploads = open_uploads(database, args.uploads)
        self._ledger = Ledger(UsageTable(database), by_key=args.keys is not None)
        self._jobs = open_jobs(database, self._uploads, args.jobs)
        self._execution = None if self._uploads is None else self._executing(self._uploads)
        live = self._models.labeller.live
        self._sessions = (
            None if live is None else open_sessions(live, args.sessions, charge=self._ledger, num_nodes=nodes)
        )

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor, in the loop that will run the application."""
        parts = Parts(
            classify=self._classify,
            models=lambda: self._models.labeller.models,
            decode=self._decode,
            classify_each=self._classify_each,
            sessions=self._sessions,
            once=self._once,
            uploads=self._uploads,
            jobs=self._jobs,
            ledger=self._ledger,
            chores=self._chores(),
            observe_push=self._figures.pushed,
        )
        return create_service_app(
            parts,
            keys=self._keys,
            settings=self._args.web,
            rates=self._rates,
            observe=self._observe,
            drain=self._drain,
            prefix="",  # Serve has taken /v1 off
        )

    def _observe(self, finished: Finished) -> None:
        route = f"{ROUTE_PREFIX}{finished.route}" if finished.route else ""  # Serve has taken /v1 off
        finished = dataclasses.replace(finished, route=route)
        self._figures.answered(finished)
        self._log(finished)

    def _executing(self, uploads: Uploads) -> Execution:
        return Execution(
            uploads,
            Whole(self._classify, self._classify_each),
            open_vault(),
            charge=self._ledger,
            at_once=self._args.jobs.items_at_once,
        )

    def _chores(self) -> Chores:
        usage = self._args.usage
        chores = [
            Chore("figures", self._tell_standing, STANDING_SECONDS),
            Chore("models that others answer with", self._follow, FOLLOW_SECONDS),
            Chore("idle decoders of pictures", lambda: self._models.labeller.sweep(), SWEEP_DECODERS_SECONDS),
            Chore("usage cannot be written now", self._ledger.flush, usage.flush_seconds, at_the_end=True),
            Chore("old usage", lambda: self._ledger.table.sweep(kept_days=usage.kept_days), SWEEP_USAGE_SECONDS),
        ]
        if self._uploads is not None:
            chores.append(Chore("old uploads", self._uploads.sweep, self._args.uploads.sweep_seconds))
        if self._jobs is not None:
            chores.append(Chore("old jobs", self._jobs.sweep, SWEEP_JOBS_SECONDS))
        if self._sessions is not None:
            chores.append(Chore("expired sessions", self._sessions.store.sweep, SWEEP_SESSIONS_SECONDS))
        return Chores(chores)

    def _tell_standing(self) -> None:
        self._figures.standing(num_going_on=self._drain.num_going_on, num_waiting=self._models.labeller.num_waiting)

    def _loaded(self, model: Path, also: Sequence[Path]) -> "Labeller":
        """Raises CheckpointError, OptionError or AssertionError: not models that can be used, or not together."""
        from serving.labeller import Labeller

        args = self._args
        labeller = Labeller(
            model,
            also=also,
            name=args.name,
            device=args.device,
            limits=args.limits,
            sandbox=self._boxes.sandbox,
            stuck_seconds=args.stuck_seconds,
            trusted_keys=args.require_signature,
        )
        if odd := labeller.answer_canary():
            logger.warning(odd)
        return labeller

    async def _follow(self) -> None:
        if await self._models.follow():
            self._lead_sessions()

    def _lead_sessions(self) -> None:
        if self._sessions is not None and (live := self._models.labeller.live) is not None:
            self._sessions.live = live

    def _decode(self, video: Source | Incoming, *, sampling: Sampling, clock: "Clock | None") -> Frames:
        from serving.decoding import decode

        picture, limits, sandbox = self._models.labeller.picture, self._args.limits, self._boxes.sandbox
        return decode(video, sampling=sampling, clock=clock, picture=picture, limits=limits, sandbox=sandbox)

    def _classify(self, *video: Any, **options: Any) -> Prediction:
        prediction = self._models.labeller.classify(*video, **options)
        self._figures.labelled([prediction])
        return prediction

    def _classify_each(self, *video: Any, **options: Any) -> tuple[Prediction, ...]:
        predictions = self._models.labeller.classify_each(*video, **options)
        self._figures.labelled(predictions)
        return predictions

    async def label_item(self, item: Item) -> Outcome:
        """An item of a job, which waits here for its turn."""
        assert self._execution is not None, "this service keeps no jobs"
        with self._drain.place():
            return await self._execution.label(item)

    async def ready(self) -> str | None:
        """Why no video can be labelled now, or None: the canary was labelled before this can be called."""
        self._models.labeller.check_alive()
        return LEAVING if self._drain.leaving else await asyncio.to_thread(self._boxes.why_not)

    async def prepare_model(self, model: str, *also: str) -> str | None:
        """Load other models beside those that answer, and try them on the canary clip; why not, or None."""
        return await self._models.prepare(Path(model), [*map(Path, also)])

    async def take_model(self, model: str, *also: str) -> None:
        """Answer with what was prepared."""
        await self._models.take(Path(model), [*map(Path, also)])
        self._lead_sessions()

    async def prepare_head(self, folder: str) -> str | None:
        """Load one more model on the same backbone, and try it on the canary clip; why not, or None."""
        return await self._models.prepare_head(Path(folder))

    async def take_head(self, folder: str) -> None:
        """Answer with it, too."""
        await self._models.take_head(Path(folder))

    async def remove_head(self, folder: str) -> None:
        """Answer with that model no more."""
        self._models.remove_head(Path(folder))

    async def drop_prepared(self) -> None:
        """Forget what was prepared."""
        self._models.drop()

    async def leave(self) -> None:
        """Take nothing new, and end open streams."""
        self._drain.begin()

    async def num_going_on(self) -> int:
        """Requests and streams that are being answered."""
        return self._drain.num_going_on

    def check_health(self) -> None:
        """Called by Serve now and then: to raise is to be replaced."""
        self._models.labeller.check_alive()


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

    Raises:
        RayNotStarted: this machine is too busy.
    """
    num_cpus = os.cpu_count() or 1
    start_ray(
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
    control = build_control(ControlArgs(web=args.web, log=args.log, jobs=args.jobs))
    serve.run_many(
        [serve.RunTarget(control, CONTROL, "/", QUIET), serve.RunTarget(service, SERVICE, ROUTE_PREFIX, QUIET)]
    )


def stop() -> None:
    """Let the applications finish what they are answering, then end every process that `start` started."""
    if ray.is_initialized() and SERVICE in serve.status().applications:
        serve.delete(SERVICE)  # waits; serve.shutdown() would also kill Serve's own actors, of which Ray complains
    ray.shutdown(wait_for_processes=True)
