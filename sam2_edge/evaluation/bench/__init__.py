"""Speed and memory of bundles and of PyTorch, measured side by side."""
