"""Pages of figures from several nodes become one."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.figures import gathered, merged
from tests.running import free_port

PAGE = """\
# HELP ray_vidseq_requests_total Requests answered.
# TYPE ray_vidseq_requests_total counter
ray_vidseq_requests_total{{node="{node}"}} 2.0
# HELP ray_object_store_memory Of no interest.
# TYPE ray_object_store_memory gauge
ray_object_store_memory{{node="{node}"}} 1.0
"""


def test_two_pages_become_one_with_each_family_in_one_piece() -> None:
    page = merged([PAGE.format(node="a"), PAGE.format(node="b")])
    families = {family.name: family.samples for family in text_string_to_metric_families(page)}
    assert [sample.labels["node"] for sample in families["ray_vidseq_requests"]] == ["a", "b"]
    assert page.count("# TYPE") == 1


def test_what_is_not_wanted_is_left_out() -> None:
    assert "ray_object_store_memory" not in merged([PAGE.format(node="a")])


@pytest.fixture
def agent() -> Iterator[tuple[str, int]]:
    """Somebody who answers as a node's agent does."""

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGE.format(node="a").encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield "127.0.0.1", server.server_port
        server.shutdown()
        thread.join()


def test_a_node_that_does_not_answer_is_a_comment_beside_the_figures_of_the_others(agent: tuple[str, int]) -> None:
    page = gathered([agent, ("127.0.0.1", free_port())]).decode()
    assert 'ray_vidseq_requests_total{node="a"} 2.0' in page
    assert "# the agent of node 127.0.0.1 does not answer: ConnectionRefusedError" in page
