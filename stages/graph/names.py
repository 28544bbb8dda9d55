"""The name in every ONNX file that Bonsai writes; apart from `exporting.py`, because running an engine needs no torch."""

MODEL = "model.onnx"
INPUT = "input"
"""Outputs are named by the task."""
