"""What learns: batches in, weights out, whatever happens on the way."""
