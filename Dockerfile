# The processor: `extproc serve`, `extproc envoy`, `extproc mock`. Envoy is an image of its own.
# For a release, pin by digest: --build-arg PYTHON=python:3.11-slim@sha256:<digest>
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
WORKDIR /src
# Without pip: nothing can be installed into the image that runs.
RUN python -m venv --without-pip /opt/extproc
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY extproc extproc
# The extra `envoy` renders Envoy's configuration, `google` signs for service accounts, `redis` counts for a fleet. Not `local`: it is Envoy itself.
RUN python -m pip --python /opt/extproc/bin/python install --no-cache-dir -c constraints.txt '.[envoy,google,redis]'

FROM ${PYTHON}
COPY --from=build /opt/extproc /opt/extproc
ENV PATH=/opt/extproc/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GRPC_VERBOSITY=ERROR
WORKDIR /
# The uid of the Envoy image too: the socket between them has mode 0600.
USER 65532:65532
EXPOSE 9090
ENTRYPOINT ["extproc"]
