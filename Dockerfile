FROM python:3.11-slim AS native
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY native /native
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /native

FROM python:3.11-slim
RUN useradd --uid 65532 --no-create-home monitor && mkdir -p /var/lib/monitor && chown 65532:65532 /var/lib/monitor
WORKDIR /app
COPY pyproject.toml README.md ./
COPY monitor ./monitor
COPY --from=native /wheels /wheels
RUN pip install --no-cache-dir '.[notify]' /wheels/*.whl
USER 65532
VOLUME /var/lib/monitor
ENTRYPOINT ["monitor"]
CMD ["run", "--config", "/etc/monitor/monitor.yaml"]
