"""The figures of a whole cluster on one page, in Prometheus' text format. Knows nothing of Ray.

Each node's agent exports what all processes of that node count; here their pages are fetched, cut and laid together.
"""

import http.client
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_SECONDS = 3.0
MAX_PAGE_BYTES = 32 * 2**20
MAX_CONNECTIONS = 16
WANTED = ("ray_vidseq_", "ray_serve_num_", "ray_serve_deployment_", "ray_serve_replica_", "ray_serve_http_")


def gathered(addresses: Sequence[tuple[str, int]]) -> bytes:
    """One page from the agents at these (host, port). An agent that does not answer is a comment on it."""
    with ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
        return merged(pool.map(_page, addresses)).encode()


def merged(pages: Iterable[str]) -> str:
    """The wanted families of all pages, each family in one piece and under one heading."""
    families: dict[str, dict[str, None]] = {}  # a dict of lines: in order, each once
    for page in pages:
        family = ""
        for line in page.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
            if family.startswith(WANTED) or family == "":
                families.setdefault(family, {})[line] = None
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _page(address: tuple[str, int]) -> str:
    host, port = address
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        page = answer.read(MAX_PAGE_BYTES).decode()
        return page if answer.status == 200 else f"# the agent of node {host} answers {answer.status}\n"
    except (OSError, http.client.HTTPException) as error:
        return f"# the agent of node {host} does not answer: {type(error).__name__}\n"
    finally:
        connection.close()
