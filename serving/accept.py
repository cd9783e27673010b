"""Which of our answers an Accept header likes best: one JSON document, or lines of it. Knows nothing else."""

from python_multipart.multipart import parse_options_header

LINES_TYPE = "application/x-ndjson"
_DOCUMENT = ("application/json", "application/*", "*/*")  # the most special one counts


def lines_wanted(accept: str) -> bool:
    """Whether lines are asked for by name, and liked no less than the document."""
    shares = {}
    for item in accept.lower().split(","):
        media_type, parameters = parse_options_header(item.strip())
        try:
            share = float(parameters.get(b"q", b"1"))
        except ValueError:
            share = 0.0
        shares[media_type.decode("latin-1")] = share
    document = next((shares[name] for name in _DOCUMENT if name in shares), 0.0)
    lines = shares.get(LINES_TYPE, 0.0)
    return lines > 0 and lines >= document
