"""The command line: `sam2-edge`. One file per command, each a thin shell over a function."""
