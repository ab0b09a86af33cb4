"""The tracker as a stateful model of Triton Inference Server; see docs/guides/triton.md."""
