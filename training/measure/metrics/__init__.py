"""Figures of merit from scores and targets, a room for each kind. Knows nothing of models or of files."""
