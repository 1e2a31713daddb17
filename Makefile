# make demo and make test do all of their set-up themselves; README.md says more.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO      ?= go
# Pure Go: the binary runs in every image, whatever C library it has.
export CGO_ENABLED = 0
ifeq ($(CI),true)
export LAYERWRIGHT_TEST_NO_SKIP = 1
endif

TEST_PACKAGES := ca-certificates docker.io docker-registry runc busybox-static mmdebstrap attr libcap2-bin xz-utils bzip2 zstd gcc libc6-dev podman catatonit qemu-user-static rsync git

.PHONY: bench build buildkit compare demo gitlab-ci-local image lint vet unit race blackbox test test-deps clean

build: ## bin/layerwright
	$(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/layerwright ./entrypoint

buildkit: ## bin/buildkitd and bin/buildctl, which the tests compare with
	cd tools/buildkit && $(GO) build -o ../../bin/ github.com/moby/buildkit/cmd/buildkitd github.com/moby/buildkit/cmd/buildctl

gitlab-ci-local: tools/gitlab-ci-local/node_modules/.package-lock.json ## the runner of GitLab's jobs, with the Node that it needs

tools/gitlab-ci-local/node_modules/.package-lock.json: tools/gitlab-ci-local/package.json tools/gitlab-ci-local/package-lock.json
	@command -v npm >/dev/null || { echo "gitlab-ci-local: npm is missing: install it (Debian: apt-get install npm)" >&2; exit 4; }
	cd tools/gitlab-ci-local && npm ci && touch node_modules/.package-lock.json

demo: build ## a build from beginning to end, nothing needed but Linux and Go
	$(GO) build -o bin/demo ./tests/demo
	bin/demo

IMAGE ?= layerwright:$(IMAGE_TARGET)
IMAGE_TARGET ?= executor
IMAGE_CERTIFICATES ?= /etc/ssl/certs/ca-certificates.crt
# Another architecture than this machine's: make image IMAGE_ARCH=arm64 (the executor).
IMAGE_ARCH ?= $(shell $(GO) env GOARCH)
IMAGE_BINARY := bin/layerwright-$(IMAGE_ARCH)

image: build ## the image, built by Layerwright itself and without a registry: make image IMAGE_TARGET=debug
	GOARCH=$(IMAGE_ARCH) $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(IMAGE_BINARY) ./entrypoint
	@[[ $(IMAGE_TARGET) != debug || $(IMAGE_ARCH) == $$($(GO) env GOARCH) ]] || { echo "image: the debug image needs a busybox of its architecture: make it on such a machine" >&2; exit 2; }
	@[[ -r $(IMAGE_CERTIFICATES) ]] || { echo "image: $(IMAGE_CERTIFICATES) is missing: install ca-certificates, or name another file: IMAGE_CERTIFICATES=FILE" >&2; exit 4; }
	@busybox=$$(command -v busybox) || [[ $(IMAGE_TARGET) != debug ]] || { echo "image: install busybox-static for the debug image" >&2; exit 4; }; \
	rm -rf .image && mkdir -p .image/compile .image/shell/bin .image/applets .image/context && \
	tools/image/tree.sh $(IMAGE_BINARY) $(IMAGE_CERTIFICATES) .image/compile/out/$(IMAGE_ARCH) && \
	{ [[ -z "$$busybox" ]] || { cp "$$busybox" .image/shell/bin/busybox && tools/image/applets.sh "$$busybox" .image/applets/out; }; }
	bin/layerwright build --file Dockerfile --target $(IMAGE_TARGET) --platform linux/$(IMAGE_ARCH) --reproducible \
	  --build-context compile=.image/compile --build-context shell=.image/shell --build-context applets=.image/applets \
	  --destination $(IMAGE) --no-push --tar-path .image/image.tar --oci-layout-path .image/layout .image/context
	@if docker version >/dev/null 2>&1; then docker load --input .image/image.tar; else echo "image: no Docker engine here; .image/layout is an OCI layout, .image/image.tar is for docker load"; fi

test: test-deps lint vet race unit blackbox ## everything

test-deps: ## Debian packages with the real programs that the tests work with
	@missing=(); \
	for p in $(TEST_PACKAGES); do \
	  dpkg-query -W -f '$${Status}' "$$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$$p"); \
	done; \
	command -v npm >/dev/null || missing+=(npm); \
	if (( $${#missing[@]} == 0 )); then exit 0; fi; \
	if ! command -v apt-get >/dev/null || (( $$(id -u) != 0 )); then \
	  why="not root"; command -v apt-get >/dev/null || why="no apt-get on this machine"; \
	  echo "test-deps: cannot install $${missing[*]} ($$why)." >&2; \
	  if [[ "$${LAYERWRIGHT_TEST_NO_SKIP:-}" == 1 ]]; then echo "test-deps: and no test may be skipped in CI: run as root on Debian." >&2; exit 4; fi; \
	  echo "test-deps: tests that need them will be skipped; run as root on Debian to have them all." >&2; exit 0; \
	fi; \
	echo "test-deps: installing $${missing[*]}"; \
	apt-get update -q; \
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$${missing[@]}" </dev/null

bin/golangci-lint: tools/lint/go.mod tools/lint/go.sum
	cd tools/lint && $(GO) build -o ../../bin/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

compare: build buildkit ## one Dockerfile by Layerwright and by BuildKit: make compare CONTEXT=dir FLAGS="-f FILE …"
	$(GO) run ./tests/conformance/cmd/compare $(FLAGS) $(CONTEXT)

bench: build buildkit ## workloads by Layerwright and by BuildKit, measured: docs/benchmarks.md; make bench FLAGS="-n 7"
	$(GO) run ./tests/bench --output docs $(FLAGS)

bin/actionlint: tools/actionlint/go.mod tools/actionlint/go.sum
	cd tools/actionlint && $(GO) build -o ../../bin/ github.com/rhysd/actionlint/cmd/actionlint

bin/act: tools/act/go.mod tools/act/go.sum ## the runner of GitHub workflows that tests/act uses
	cd tools/act && $(GO) build -o ../../bin/ github.com/nektos/act

lint: bin/golangci-lint bin/actionlint
	bin/golangci-lint run ./...
	bin/actionlint .github/workflows/*.yml examples/github/*.yml

vet:
	$(GO) vet ./...

# The race detector needs cgo, and compiling BuildKit's frontend with it takes longer than all
# of these tests: packages that import that are tested without. Short, since unit
# runs everything again at full size.
race:
	@command -v gcc >/dev/null || { if [[ "$${LAYERWRIGHT_TEST_NO_SKIP:-}" == 1 ]]; then echo "race: needs gcc" >&2; exit 4; fi; echo "race: skipped, no gcc" >&2; exit 0; }; \
	packages=$$($(GO) list -f '{{.ImportPath}} {{join .Deps " "}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./core/internal/... | grep -vE "github.com/moby/buildkit/(frontend|client)" | cut -d' ' -f1); \
	CGO_ENABLED=1 $(GO) test -race -short -timeout 10m $$packages

unit:
	$(GO) test -timeout 10m ./core/... ./entrypoint/... ./plugin/... ./github/... ./gitlab/... ./drone/...

# One package at a time: each starts daemons of its own.
blackbox: build buildkit
	$(GO) test -p 1 -timeout 30m ./tests/...

clean:
	rm -rf bin .demo
