"""From a folder of labelled clips to a checkpoint. Knows nothing of serving."""
