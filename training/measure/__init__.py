"""What a model is worth: figures with intervals, on clips that it has not learnt from."""
