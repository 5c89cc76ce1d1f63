# The processor: `extproc serve`, `extproc envoy`, `extproc mock`. Envoy is an image of its own.
# For a release, pin by digest: --build-arg PYTHON=python:3.11-slim@sha256:<digest>
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
WORKDIR /src
# Without pip: nothing can be installed into the image that runs.
RUN python -m venv --without-pip /opt/extproc
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY extproc extproc
# The extra `envoy` renders Envoy's configuration, `google` signs for service accounts, `redis` and `postgres` are for a
# fleet, `tokens` counts exactly where a budget is nearly spent. Not `local`: it is Envoy itself. `semantic` adds 60 MB:
# --build-arg EXTRAS=cache,console,envoy,google,redis,postgres,semantic
ARG EXTRAS=cache,console,envoy,google,redis,postgres
RUN python -m pip --python /opt/extproc/bin/python install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM ${PYTHON}
COPY --from=build /opt/extproc /opt/extproc
ENV PATH=/opt/extproc/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GRPC_VERBOSITY=ERROR
# Where the default settings put counters and ledger (data/counters.db): mount a volume here, or they end with the container.
RUN install -d -o 65532 -g 65532 /var/lib/extproc
WORKDIR /var/lib/extproc
# The uid of the Envoy image too: the socket between them has mode 0600.
USER 65532:65532
EXPOSE 9090 9091
ENTRYPOINT ["extproc"]
