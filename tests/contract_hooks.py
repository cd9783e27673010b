"""What schemathesis sends as a video besides what it makes up: the clip that CONTRACT_CLIP names, or its start."""

import os
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

CLIP = Path(os.environ["CONTRACT_CLIP"]).read_bytes()

schemathesis.openapi.media_type(
    "application/octet-stream", st.sampled_from([CLIP, CLIP[: len(CLIP) // 3]]) | st.binary(max_size=2000)
)
schemathesis.openapi.media_type("application/offset+octet-stream", st.binary(max_size=2000))
