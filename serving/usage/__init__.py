"""What each key has used, day by day: what a bill or a quota needs, and no more. Nothing here tells of a video."""
