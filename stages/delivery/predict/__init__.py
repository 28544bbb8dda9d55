"""The program `predict.py` of a package: Python 3.10, NumPy, Pillow and the package's runtime, nothing of Bonsai."""
