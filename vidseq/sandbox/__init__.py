"""A video decoded in a process that can do nothing else. `vidseq.sandbox.box.Sandbox` is its door.

caller -> box.Sandbox -- clip, channel, ring, pipe --> fork server (python -I -m vidseq.sandbox)
                                                            | forks, for every clip
caller <- boxed.BoxedDecoder <-- fixed structs, pictures in shared memory -- child: confined, then decodes
"""
