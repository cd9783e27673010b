"""The one file of a multipart/form-data body, handed on as it comes. Knows nothing of HTTP or of video.

Starlette's own form parser is not used: it writes uploads to disk, whole, before anyone can object to their size.
"""

from collections.abc import Callable

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from serving.problems import MalformedBody

FILE_FIELD = "file"


class FileField:
    """Passes the content of the field `file` to `keep`. Any other field, or a second file, is an error.

    The parser underneath bounds the headers of a part (8 of 4 KB); whoever feeds it bounds the body.

    Errors, from every method: MalformedBody.
    """

    def __init__(self, boundary: bytes, keep: Callable[[bytes], None]) -> None:
        if not boundary:
            raise MalformedBody("the Content-Type multipart/form-data names no boundary")
        self._keep = keep
        self._header = self._value = self._disposition = b""
        self._num_files = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise MalformedBody(str(error)) from error

    def write(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise MalformedBody(f"the multipart body is damaged: {error}") from error

    def finish(self) -> None:
        """To be called after the last piece: was that a whole form with a file?"""
        if not self._ended:
            raise MalformedBody("the multipart body ends before its last boundary")
        if self._num_files == 0:
            raise MalformedBody(f"the form has no field {FILE_FIELD!r}")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        self._disposition = b""
        name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if name != FILE_FIELD:
            raise MalformedBody(f"the form has a field {name[:50]!r}; only {FILE_FIELD!r} is read, options are a query")
        self._num_files += 1
        if self._num_files > 1:
            raise MalformedBody(f"the form has more than one field {FILE_FIELD!r}")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._keep(data[start:end])

    def _on_end(self) -> None:
        self._ended = True
