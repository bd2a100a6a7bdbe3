FROM python:3.13-slim AS packages
WORKDIR /app
# Only what decides on the packages, so that this layer is kept when nothing but sources change.
COPY tallystick ./
COPY ops/setup/__init__.py ops/setup/bootstrap.py ops/setup/progress.py ops/setup/words.py ops/setup/
COPY ops/lock ops/lock
COPY ops/deploy/slim.py ops/deploy/slim.py
# PostgreSQL and Redis are services of their own here; the embedded ones stay out of the image.
RUN PIP_NO_COMPILE=1 ./tallystick setup \
    && python ops/deploy/slim.py .venv

FROM python:3.13-slim
LABEL org.opencontainers.image.title="tallystick" org.opencontainers.image.licenses="Apache-2.0"
# A number, so that an orchestrator can see that it is not root.
RUN useradd --system --uid 10001 --no-create-home tallystick \
    && install --directory --owner=tallystick /var/lib/tallystick
WORKDIR /app
COPY --from=packages /app/.venv .venv
COPY core core
COPY handlers handlers
COPY jobs jobs
COPY loadtests loadtests
COPY ops ops
COPY sql sql
# The service may not write to its own sources, so they are compiled here.
RUN .venv/bin/python -m ops.deploy.bytecode
# What is safe only on a developer's machine is refused, whoever runs the image: dev is asked for by name.
ENV ENV=prod \
    PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    APP_PORT=8080 \
    STATE_DIR=/var/lib/tallystick
USER 10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=90s \
    CMD ["sh", "-c", "exec python -IS /app/ops/deploy/healthy.py \"$APP_PORT\" /health"]
ENTRYPOINT ["tallystick"]
CMD ["serve"]
