"""`python -m sam2_edge`, the same as `sam2-edge`."""

from __future__ import annotations

from sam2_edge.cli.entry import main

if __name__ == "__main__":
    main()
