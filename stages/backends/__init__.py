"""Runtimes, and how latency is measured on them."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported; it would write to ~/.cache and report home
