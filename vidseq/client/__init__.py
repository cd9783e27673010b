"""The SDK: ask a vidseq service from Python. Knows the service by its URL only, and neither torch, OpenCV nor numpy.

with Client("http://127.0.0.1:8000") as client:
    prediction = client.classify("clip.mp4")
    print(prediction.action, prediction.segments)
"""

from vidseq.client.clients import AsyncClient, Client
from vidseq.client.uploads import Progress, Source

__all__ = ["AsyncClient", "Client", "Progress", "Source"]
