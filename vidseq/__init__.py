"""vidseq labels video in time: one action for a clip, a label for every frame.

`import vidseq` loads nothing heavy; `vidseq.client` is the SDK, `vidseq.classifier` the model.
"""

__version__ = "0.1.0"
