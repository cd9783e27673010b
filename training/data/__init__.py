"""Labelled clips, as they are read, computed once, and handed to whoever learns from them."""
