"""What a test needs of the machine. Missing, it skips the test and says why, or fails it where REQUIRE names it.

REQUIRE="make docker" make test     a skip for want of make or docker is a failure
"""

import os
import shutil
from typing import NoReturn

import pytest


def need(tool: str) -> str:
    """The path of an executable."""
    return shutil.which(tool) or missing(tool, f"{tool} is not installed")


def missing(name: str, why: str) -> NoReturn:
    """Ends the running test: skipped because of `why`, or failed where `name` is required."""
    if name in os.environ.get("REQUIRE", "").split():
        pytest.fail(f"{why}, and REQUIRE names it")
    pytest.skip(why)
