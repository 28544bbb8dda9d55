# Two images: `train` (the default) compresses networks; `device` reads packages, and builds, times and runs engines, without torch and Prefect.
# docs/containers.md says how to build, run and reach them.
FROM python:3.11.14-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CONSTRAINT=/opt/bonsai/constraints.txt \
    PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 ORT_DISABLE_TELEMETRY=1
# Artifacts live in a volume, owned by whoever runs the container.
RUN useradd --create-home bonsai && install --directory --owner=bonsai --group=bonsai /data
WORKDIR /opt/bonsai
# The dependencies come before the sources, so that a change of the sources installs none of them again: an empty package brings them.
COPY pyproject.toml constraints.txt ./
RUN mkdir --parents src/bonsai && touch README.md src/bonsai/__init__.py && pip install .

FROM base AS wheel
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheel .

FROM base AS device
# EXTRA: `openvino` is a second runtime for CPUs; `tensorrt` builds engines on the GPU of the machine.
ARG EXTRA=
RUN pip install ".${EXTRA:+[${EXTRA}]}"
COPY --from=wheel /wheel /wheel
RUN pip install --no-deps --force-reinstall /wheel/*.whl
USER bonsai
WORKDIR /data
VOLUME /data
ENTRYPOINT ["bonsai"]
CMD ["--help"]

FROM base AS train
# TORCH_INDEX: where torch comes from. The CPU build keeps several gigabytes of CUDA packages out.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# What torch itself needs follows from the usual index.
RUN pip install --no-deps --index-url "${TORCH_INDEX}" torch
# EXTRA: `rtx` builds engines for RTX GPUs without a GPU; `openvino` is a second runtime for CPUs; `tensorrt` builds and runs on the GPU of the machine.
ARG EXTRA=rtx,openvino
RUN pip install ".[train${EXTRA:+,${EXTRA}}]"
COPY --from=wheel /wheel /wheel
RUN pip install --no-deps --force-reinstall /wheel/*.whl
USER bonsai
WORKDIR /data
VOLUME /data
EXPOSE 4200
ENTRYPOINT ["bonsai"]
CMD ["--help"]
