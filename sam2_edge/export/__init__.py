"""From PyTorch modules to a checked bundle of graphs."""
