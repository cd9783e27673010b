"""A replica that is killed in mid-stream costs its clients a moment, and not one label."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.kill import SIZE, compared, live
from benchmarks.memory import save_model
from tests.running import running_service


@pytest.mark.cluster
@pytest.mark.slow
def test_no_label_is_lost_doubled_or_changed_when_replicas_are_killed(tmp_path: Path) -> None:
    save_model(tmp_path / "model", size=SIZE)
    with running_service(tmp_path / "model", "--replicas", "2") as service:
        clients = asyncio.run(live(service, sessions=12, replicas=2, kills=2))
    assert sum(client.num_pushed for client in clients) > 500
    assert asyncio.run(compared(tmp_path / "model", clients)) == {"lost": 0, "doubled": 0, "differing": 0}
