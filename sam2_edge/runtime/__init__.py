"""The torch-free runtime: what is installed on a device."""
