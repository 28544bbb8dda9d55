# CPU by default; for a machine with an NVIDIA GPU:
#   docker build --build-arg EXTRA=tensorrt --build-arg TORCH=torch --tag bonsai:gpu .
FROM python:3.11-slim-bookworm

# TORCH: the wheel to install first. The CPU build keeps several gigabytes of CUDA packages out.
ARG TORCH="torch<2.14 --index-url https://download.pytorch.org/whl/cpu"
# EXTRA: `rtx` builds engines for RTX GPUs without a GPU; `openvino` is a second runtime for CPUs; `tensorrt` builds and runs on the GPU of the machine.
ARG EXTRA=rtx,openvino

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 DO_NOT_TRACK=1
WORKDIR /opt/bonsai
RUN pip install ${TORCH}
COPY pyproject.toml README.md ./
COPY profiles profiles
COPY stages stages
COPY pipeline pipeline
RUN pip install ".[train,${EXTRA}]"

# Artifacts live in a volume, owned by whoever runs the container.
RUN useradd --create-home bonsai && install --directory --owner=bonsai /work
USER bonsai
WORKDIR /work
VOLUME /work
ENTRYPOINT ["bonsai"]
CMD ["--help"]
