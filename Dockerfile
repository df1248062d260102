# dpmesh serve in a container: docker build --build-arg TORCH_INDEX=INDEX -t dpmesh .
# TORCH_INDEX: the package index with PyTorch's CPU builds (docs/guide/install.md); without it pip takes the CUDA build.

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY constraints.txt /tmp/constraints.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' /tmp/constraints.txt)" \
    && pip install -c /tmp/constraints.txt "$(echo /wheels/dpmesh-*.whl)[serve,video,heic]" \
    && rm /tmp/constraints.txt \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin dpmesh

# One thread a request, and few arenas: memory stays flat. numba keeps what it compiles in a folder that can be written.
ENV OMP_NUM_THREADS=1 MALLOC_ARENA_MAX=2 NUMBA_CACHE_DIR=/tmp/numba
USER 10001
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["dpmesh", "serve", "--host", "0.0.0.0", "--port", "8080"]
