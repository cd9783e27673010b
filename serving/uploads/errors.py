"""What can be wrong with an upload, or with where it lies. Knows neither HTTP nor files."""

from vidseq.errors import InputError, VidseqError


class UploadError(InputError):
    """The caller's: the upload cannot go on like this."""

    code = "upload/invalid"


class UploadNotFound(UploadError):
    """There is none of that id, or it is another owner's, which nobody is told."""

    code = "upload/not-found"

    def __init__(self, upload_id: str) -> None:
        shown = upload_id if upload_id.isalnum() else repr(upload_id[:50])
        super().__init__(f"there is no upload {shown[:60]} here: it has expired, was deleted, or never was")


class UploadOffset(UploadError):
    """The bytes that come are not the next ones; `offset` is where those begin."""

    code = "upload/offset"

    def __init__(self, *, said: int, offset: int) -> None:
        super().__init__(f"the next bytes begin at {offset:,}, and those that were sent at {said:,}")
        self.offset = offset


class UploadIncomplete(UploadError):
    """Not all of it is here, or nobody has said what its digest is."""

    code = "upload/incomplete"


class UploadDigest(UploadError):
    """All bytes are here, and they are others than was said."""

    code = "upload/digest"


class UploadTooLarge(UploadError):
    """One upload would have more bytes than one may have, or than were declared of it."""

    code = "upload/too-large"


class UploadQuota(UploadError):
    """All uploads of one owner together would be too many, or have too many bytes."""

    code = "upload/quota"


class UploadBusy(VidseqError):
    """Somebody writes to this upload, or reads all of it; `retry_after_seconds` is when to ask again."""

    code = "upload/busy"
    retry_after_seconds = 1.0

    def __init__(self) -> None:
        super().__init__("another request has this upload: ask again when it has ended, or was cut")


class StorageFull(VidseqError):
    """No room where uploads lie; what has come so far is kept."""

    code = "upload/storage-full"

    def __init__(self) -> None:
        super().__init__("there is no room for more uploads here now: what has come is kept, so go on later")


class StorageDown(VidseqError):
    """Where uploads lie cannot be read or written; `reason` is for the operator alone."""

    code = "upload/storage-down"

    def __init__(self, reason: object) -> None:
        super().__init__("uploads cannot be read or written here now: ask again later")
        self.reason = str(reason)
