"""The original package's image API."""
