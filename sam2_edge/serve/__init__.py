"""The camera loop in a browser: a page that shows and controls it, and metrics (extra `serve`)."""
