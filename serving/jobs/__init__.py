"""Jobs: videos that were handed over, labelled when it is their turn, and kept until they are asked for."""
