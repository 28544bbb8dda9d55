# Two images. For training, the default:
#   docker build --tag bonsai .                                                                  on a CPU
#   docker build --build-arg EXTRA=tensorrt --build-arg TORCH=torch --tag bonsai:gpu .           on an NVIDIA GPU
#   docker run --volume bonsai:/work bonsai run resnet-edge
# For a device, without torch and Prefect: it reads packages, and builds, times and runs engines:
#   docker build --target device --build-arg EXTRA=openvino --tag bonsai:device .
#   docker run --volume $PWD/packages:/work:ro bonsai:device verify --require-run resnet-edge--local-cpu
# The server of `bonsai serve` listens inside the container alone, unless its host is asked for, and then needs a secret:
#   docker run --publish 4200:4200 --env PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD bonsai serve --host 0.0.0.0
FROM python:3.11.14-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 ORT_DISABLE_TELEMETRY=1
# Artifacts live in a volume, owned by whoever runs the container.
RUN useradd --create-home bonsai && install --directory --owner=bonsai /work
WORKDIR /opt/bonsai
# The dependencies come before the sources, so that a change of the sources installs none of them again.
COPY pyproject.toml ./
RUN printf '%s\n' \
  'import sys, tomllib' \
  'project = tomllib.load(open("pyproject.toml", "rb"))["project"]' \
  'extras = [extra for extra in ",".join(sys.argv[1:]).split(",") if extra]' \
  'print(*project["dependencies"], *(name for extra in extras for name in project["optional-dependencies"][extra]), sep="\n")' > dependencies.py \
  && python dependencies.py > plain.txt && pip install --requirement plain.txt

FROM base AS device
# EXTRA: `openvino` is a second runtime for CPUs; `tensorrt` builds engines on the GPU of the machine.
ARG EXTRA=
RUN python dependencies.py "${EXTRA}" > all.txt && pip install --requirement all.txt
COPY README.md ./
COPY src src
COPY profiles profiles
COPY stages stages
COPY pipeline pipeline
RUN pip install --no-deps .
USER bonsai
WORKDIR /work
VOLUME /work
ENTRYPOINT ["bonsai"]
CMD ["--help"]

FROM base AS train
# TORCH: the wheel to install first. The CPU build keeps several gigabytes of CUDA packages out.
ARG TORCH="torch<2.14 --index-url https://download.pytorch.org/whl/cpu"
RUN pip install ${TORCH}
# EXTRA: `rtx` builds engines for RTX GPUs without a GPU; `openvino` is a second runtime for CPUs; `tensorrt` builds and runs on the GPU of the machine.
ARG EXTRA=rtx,openvino
RUN python dependencies.py train "${EXTRA}" > all.txt && pip install --requirement all.txt
COPY README.md ./
COPY src src
COPY profiles profiles
COPY stages stages
COPY pipeline pipeline
RUN pip install --no-deps .
USER bonsai
WORKDIR /work
VOLUME /work
EXPOSE 4200
ENTRYPOINT ["bonsai"]
CMD ["--help"]
