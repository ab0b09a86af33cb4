"""EdgeTAM: SAM 2 with a convolutional image encoder and a perceiver of memories."""
