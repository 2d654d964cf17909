FROM python:3.11-slim
RUN useradd --uid 65532 --no-create-home monitor && mkdir -p /var/lib/monitor && chown 65532:65532 /var/lib/monitor
WORKDIR /app
COPY pyproject.toml README.md ./
COPY monitor ./monitor
RUN pip install --no-cache-dir '.[notify]'
USER 65532
VOLUME /var/lib/monitor
ENTRYPOINT ["monitor"]
CMD ["run", "--config", "/etc/monitor/monitor.yaml"]
