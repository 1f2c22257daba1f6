# `make help` says what there is. The work is done by the scripts in tests/setup, which also run without make.

cluster_home := $(CURDIR)/target/cluster
cluster := tests/cluster/cluster --home "$(cluster_home)"

.PHONY: help build demo test check bench cluster-start cluster-stop clean

help:
	@echo 'make build          build target/release/alluxio-fuse, after installing what building needs'
	@echo 'make demo           build, mount a local directory, copy a file in and out, unmount'
	@echo 'make test           check and test everything, on a real Alluxio cluster of its own, as root'
	@echo 'make check          format, lints, documentation, layers'
	@echo 'make bench          compare with the Java client and with tmpfs (BENCH_QUICK=1 for a short run, BENCH_PART=... for a part)'
	@echo 'make cluster-start  start a real Alluxio on this machine, and say how to mount it'
	@echo 'make cluster-stop   stop it'
	@echo 'make clean          remove what was built'

build:
	@tests/setup/deps build
	cargo build --locked --release

demo:
	@tests/setup/demo

test:
	@tests/setup/test

check:
	@tests/setup/check

bench:
	@tests/setup/bench

cluster-start:
	@tests/setup/deps build cluster
	@$(cluster) start --workers 2
	@echo
	@echo '# A real Alluxio runs. Mount it:'
	@echo 'eval "$$($(cluster) env)"'
	@echo 'cargo run -- mount DIR /'
	@echo '# Its shell: $(cluster) fs ls /'

cluster-stop:
	@$(cluster) stop

clean:
	@if [ -e "$(cluster_home)/run/settings" ]; then $(cluster) stop; fi
	cargo clean
