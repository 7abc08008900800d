# PruneCert on the processor: docker build -t prunecert . && docker run --rm prunecert verifiers
#
# The package index's own torch brings CUDA's libraries along; name an index with the CPU's builds to go without:
#   docker build --build-arg TORCH_INDEX=URL -t prunecert .
# Mount your folder, as yourself, to work on it:
#   docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" prunecert gate --baseline gate/baseline.json --suite gate/suite.yaml
FROM python:3.12-slim-bookworm AS build

ARG EXTRAS=site
ARG TORCH_INDEX=""
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
# torch alone first: it is most of the image, and changes less often than the sources.
RUN python -m venv /opt/prunecert \
    && /opt/prunecert/bin/pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY bench ./bench
COPY models ./models
COPY verifiers ./verifiers
COPY prunecert ./prunecert
RUN /opt/prunecert/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM python:3.12-slim-bookworm

LABEL org.opencontainers.image.title="PruneCert" \
      org.opencontainers.image.description="Verified robustness of pruned neural networks" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/prunecert /opt/prunecert
# Compiled kernels are kept in the home folder; whoever else runs it (docker run -u) has one of his own in /tmp.
RUN useradd --create-home --uid 10001 prunecert && mkdir /work && chown prunecert /work
ENV PATH=/opt/prunecert/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib
USER 10001
WORKDIR /work
ENTRYPOINT ["prunecert"]
CMD ["--help"]
