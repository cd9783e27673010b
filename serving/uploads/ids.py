"""The names of uploads: made here, and looked at before they become part of a path or of a statement."""

import re
import secrets

from serving.uploads.errors import UploadNotFound

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def new_id() -> str:
    """128 random bits: nobody guesses another's."""
    return secrets.token_hex(16)


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def checked_id(text: str) -> str:
    """Raises UploadNotFound: it is none, so there is none of that name."""
    if not is_id(text):
        raise UploadNotFound(text)
    return text
