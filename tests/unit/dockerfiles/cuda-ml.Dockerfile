ARG CUDA=12.4.1
ARG UBUNTU=22.04
ARG FLAVOUR=runtime
FROM nvidia/cuda:${CUDA}-cudnn-${FLAVOUR}-ubuntu${UBUNTU} AS base

ARG DEBIAN_FRONTEND=noninteractive
ARG PYTHON_VERSION=3.11
ENV LD_LIBRARY_PATH=/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean && \
    apt-get update && apt-get install -y python${PYTHON_VERSION} python${PYTHON_VERSION}-venv

FROM base AS wheels
WORKDIR /wheels
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu${CUDA//./}
COPY requirements.txt .
RUN --mount=type=ssh --mount=type=cache,target=/root/.cache/pip \
    pip wheel --extra-index-url ${TORCH_INDEX} -r requirements.txt

FROM base
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels pip install --no-index /wheels/*.whl
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d \
    https://example.com/model/weights.bin /models/
ADD --keep-git-dir=true https://github.com/example/scripts.git#v1.0:tools /opt/tools
WORKDIR /workspace
ENTRYPOINT ["python3"]
