"""What a test needs of the machine. Missing, it skips the test and says why, or fails it where REQUIRE names it.

REQUIRE="make docker" make test     a skip for want of make or docker is a failure
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

# Where Debian puts servers, and not everybody's PATH looks.
SERVERS = ["/usr/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]


def need(tool: str) -> str:
    """The path of an executable."""
    path = os.pathsep.join([os.environ["PATH"], *SERVERS])
    return shutil.which(tool, path=path) or missing(tool, f"{tool} is not installed")


def missing(name: str, why: str) -> NoReturn:
    """Ends the running test: skipped because of `why`, or failed where `name` is required."""
    if name in os.environ.get("REQUIRE", "").split():
        pytest.fail(f"{why}, and REQUIRE names it")
    pytest.skip(why)
