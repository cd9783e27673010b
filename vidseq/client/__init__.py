"""The SDK: ask a vidseq service from Python. Knows the service by its URL only, and neither torch, OpenCV nor numpy.

with Client("http://127.0.0.1:8000") as client:
    prediction = client.classify("clip.mp4")
    print(prediction.action, prediction.segments)

    with client.stream() as stream:
        stream.push(jpeg, seconds=0.0)
        print(stream.end().action)
"""

from vidseq.client.blocking import Stream, VideoStream
from vidseq.client.clients import AsyncClient, Client
from vidseq.client.conversation import Event
from vidseq.client.file_uploads import AsyncUploads, Uploads
from vidseq.client.job_calls import Video, Webhook
from vidseq.client.jobs import AsyncJob, Job
from vidseq.client.streams import AsyncStream, AsyncVideoStream
from vidseq.client.uploads import Progress, Source
from vidseq.config import StreamRules
from vidseq.messages import Notice, Resume, SegmentChange, StreamOptions
from vidseq.schemas import Moment, Upload

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AsyncStream",
    "AsyncUploads",
    "AsyncVideoStream",
    "Client",
    "Event",
    "Job",
    "Moment",
    "Notice",
    "Progress",
    "Resume",
    "SegmentChange",
    "Source",
    "Stream",
    "StreamOptions",
    "StreamRules",
    "Upload",
    "Uploads",
    "Video",
    "VideoStream",
    "Webhook",
]
