# syntax=docker/dockerfile:1

# The binary `neonhub` for the distributed stack (docker-compose.yml). The ClickHouse engine of the embedded stack is not
# in the image: with NEONHUB_CLICKHOUSE_URL set it is never loaded.

FROM rust:1.95.0-bookworm AS chef
RUN cargo install --locked cargo-chef@0.1.78
WORKDIR /build

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=plan /build/recipe.json .
# The crates that are not ours: a layer that stays until Cargo.lock changes.
RUN cargo chef cook --release --locked --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --bin neonhub && install -D target/release/neonhub /out/neonhub

FROM debian:bookworm-slim
# curl is for the health checks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/neonhub --create-home neonhub
COPY --from=build /out/neonhub /usr/local/bin/neonhub
USER 10001:10001
WORKDIR /var/lib/neonhub
ENV NEONHUB_DATA_DIR=/var/lib/neonhub
EXPOSE 7001 7002 7003
# The query API's; docker-compose.yml asks each role at its own port.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
    CMD ["curl", "--fail", "--silent", "--show-error", "http://127.0.0.1:7002/health/ready"]
# neonhub handles SIGTERM itself: stop accepting, drain, flush, exit 0.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/neonhub"]
CMD ["--help"]
