"""Training of the bundled model on synthetic clips: `python -m sam2_edge.training FOLDER`."""
