"""The camera loop in a browser: a page that shows and steers it, and metrics (extra `serve`)."""
