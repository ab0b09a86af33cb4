"""The command line, `sam2-edge`: one file per command, each a thin layer over the library."""
