"""The PyTorch side: variants, checkpoints, and the graphs as modules."""
