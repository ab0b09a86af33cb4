"""Video object segmentation: data sets, protocols and scores."""
