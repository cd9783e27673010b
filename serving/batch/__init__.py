"""Batch jobs: many clips in, a row for each out, however often the job is killed. `score` is the way in."""
