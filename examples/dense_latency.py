"""How long does the dense network of an example take on this machine? Choose a budget in milliseconds by it.

python dense_latency.py plain/before.py
"""

import runpy
import sys

import bonsai
import torch


def main() -> None:
    """Time the untrained network: latency depends on widths, not on weights."""
    script = runpy.run_path(sys.argv[1])
    images = torch.rand(64, *script["SHAPE"])
    package = bonsai.deploy(script["network"](), images, latency_ms=1e6, evaluate=lambda run: 0.0, samples=images, name="dense")
    print(f"{package.rows[-1].latency.p50:.4f} ms")


if __name__ == "__main__":
    main()
