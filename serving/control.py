"""The control replica on Ray Serve: readiness, figures, and jobs that it has done by others. Knows no routes.

GET /readyz  ->  Control  ->  Service.ready        by handle: a few bytes, never a body
due items    ->  Control  ->  Service.label_item
"""

import asyncio
import logging
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from serving import figures
from serving.arguments import ControlArgs
from serving.jobs.execution import Item
from serving.jobs.queue import Crash, Later, Leased, Outcome
from serving.locked import refuse_open_ray
from serving.places import open_background, open_database
from serving.web import create_control_app

NO_SERVICE_SECONDS = 2.0
LEAVING = "the service is stopping"

logger = logging.getLogger("ray.serve")  # where a replica's log goes


class Control:
    """What must answer while the service is full or down."""

    def __init__(self, args: ControlArgs) -> None:
        refuse_open_ray()
        self._args = args
        self._leaving = False
        self._background = open_background(open_database(num_nodes=num_nodes()), self._label, args.jobs)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor, in the loop that will run the application.

        Serve ends the application before it ends the replica, as in a rollout or where a node is drained.
        """
        self._loop = asyncio.get_running_loop()
        return create_control_app(
            ready=self._why_not_ready,
            metrics=self._metrics,
            settings=self._args.web,
            observe=self._args.log.observer(),
            lifespan=self._background.lifespan,
        )

    def _why_not_ready(self) -> str | None:
        """None if some replica of the service has labelled its canary clip and can decode now. Called in a thread."""
        if self._leaving:
            return LEAVING
        timeout_seconds = self._args.ready_timeout_seconds
        try:
            return asyncio.run_coroutine_threadsafe(self._ask(timeout_seconds), self._loop).result()
        except TimeoutError:
            return f"no replica answers within {timeout_seconds:g} seconds: it loads its model, or is too busy"
        except (RayError, RayServeException) as error:
            return f"the service is down: {type(error).__name__}"

    async def leave(self) -> None:
        """Be unready from here on, so that whoever balances loads looks elsewhere; leave jobs to others."""
        self._leaving = True
        await self._background.end()

    async def _ask(self, timeout_seconds: float) -> str | None:
        async with asyncio.timeout(timeout_seconds):
            reason: str | None = await serve.get_deployment_handle(
                "Service", app_name=self._args.service
            ).ready.remote()
            return reason

    async def _label(self, leased: Leased) -> Outcome:
        """By a replica of the service: a few bytes go there, for all have the same uploads."""
        item = Item(leased.job_id, leased.position, leased.owner, leased.upload_id, leased.options)
        handle = serve.get_deployment_handle("Service", app_name=self._args.service)
        response: Any = handle.label_item.remote(item)
        try:
            outcome: Outcome = await response
            return outcome
        except asyncio.CancelledError:
            response.cancel()
            raise
        except RayActorError:
            return Crash("the process that labelled it has died")
        except RayTaskError:
            logger.exception("item %s", item.name)
            return Crash("something went wrong here, of which the service's log knows more")
        except (RayError, RayServeException) as error:
            logger.warning("item %s: the service does not answer: %s", item.name, type(error).__name__)
            return Later(NO_SERVICE_SECONDS)

    def _metrics(self) -> bytes:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        return figures.gathered([(node["NodeManagerAddress"], node["MetricsExportPort"]) for node in nodes])


def num_nodes() -> int:
    """Of the Ray that is connected."""
    return sum(node["Alive"] for node in ray.nodes())
