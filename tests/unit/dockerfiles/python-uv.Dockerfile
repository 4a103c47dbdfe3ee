# syntax=docker/dockerfile:1.9
FROM ghcr.io/astral-sh/uv:0.5-python3.13-bookworm-slim AS build

SHELL ["sh", "-exc"]

ENV UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    UV_PYTHON_DOWNLOADS=never \
    UV_PROJECT_ENVIRONMENT=/app

RUN --mount=type=cache,target=/root/.cache \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    uv sync --locked --no-dev --no-install-project

COPY . /src
WORKDIR /src
RUN --mount=type=cache,target=/root/.cache <<EOT
uv sync --locked --no-dev --no-editable
find /app -name '*.dist-info' -maxdepth 5 | wc -l
EOT

FROM python:3.13-slim-bookworm
SHELL ["sh", "-exc"]
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1

RUN <<EOT
groupadd -r app
useradd -r -d /app -g app -N app
EOT

ENTRYPOINT ["/docker-entrypoint.sh"]
STOPSIGNAL SIGINT

COPY --chmod=755 <<'EOF' /docker-entrypoint.sh
#!/bin/sh
set -e
exec uvicorn --host "${HOST:-0.0.0.0}" --port "${PORT:-8000}" app.main:app "$@"
EOF
COPY --from=build --chown=app:app /app /app

USER app
WORKDIR /app
EXPOSE 8000
RUN <<-EOT
	python -V
	python -Im site
	python -Ic 'import app'
EOT
