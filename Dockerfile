# Layerwright's own images. docker build . makes the executor; --target debug has a
# shell besides, which GitLab's jobs need. make image builds this file with Layerwright
# itself: compile, shell and applets are directories then, and nothing is pulled.

FROM --platform=$BUILDPLATFORM golang:1.26 AS compile
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /layerwright ./entrypoint && \
    tools/image/tree.sh /layerwright /etc/ssl/certs/ca-certificates.crt /out/$TARGETARCH

FROM busybox:musl AS shell

FROM --platform=$BUILDPLATFORM busybox:musl AS applets
COPY tools/image/applets.sh /
RUN sh /applets.sh /bin/busybox /out

FROM scratch AS executor-root
ARG TARGETARCH
COPY --from=compile /out/$TARGETARCH/ /

FROM executor-root AS debug
COPY --from=applets /out/ /
COPY --from=shell /bin/busybox /layerwright/busybox/busybox
ENV HOME=/root USER=root PATH=/usr/local/bin:/kaniko:/busybox:/layerwright/bin DOCKER_CONFIG=/kaniko/.docker/ SSL_CERT_DIR=/kaniko/ssl/certs
WORKDIR /workspace
ENTRYPOINT ["/layerwright/bin/layerwright"]

FROM executor-root AS executor
ENV HOME=/root USER=root PATH=/usr/local/bin:/kaniko:/layerwright/bin DOCKER_CONFIG=/kaniko/.docker/ SSL_CERT_DIR=/kaniko/ssl/certs
WORKDIR /workspace
ENTRYPOINT ["/layerwright/bin/layerwright"]
