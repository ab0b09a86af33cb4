"""The original package's video API."""
