# docker build -t trio_feed .
# docker run -p 127.0.0.1:8080:8080 -v trio_feed:/data trio_feed
# requirements-cluster.lock is requirements.lock with psycopg and coredis, so PostgreSQL and a cluster
# (compose.cluster.yaml) work without a new image.
# tests/live/test_packaging_live.py runs these steps without a container.
FROM python:3.12-slim AS build

WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements-cluster.lock ./
RUN python -m venv /opt/trio_feed && \
    /opt/trio_feed/bin/pip install --require-hashes --no-deps -r requirements-cluster.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY trio_feed trio_feed
# Without pip, which nothing needs any more, there is less to keep current.
RUN /opt/trio_feed/bin/pip install --no-deps . && \
    /opt/trio_feed/bin/python -m pip uninstall --yes pip

FROM python:3.12-slim

RUN useradd --system --uid 10001 --home-dir /data --create-home --shell /usr/sbin/nologin trio_feed
COPY --from=build /opt/trio_feed /opt/trio_feed
COPY config/production.toml config/cluster.toml /etc/trio_feed/
ENV PATH=/opt/trio_feed/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# The store lies in /data/data, so the volume needs no preparation.
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/health', timeout=3)"]
ENTRYPOINT ["trio-feed"]
CMD ["run", "--config", "/etc/trio_feed/production.toml"]
