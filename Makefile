# The front door; CMake does the work. `make help` lists the targets.
.PHONY: all build test demo demo-compare install clean help
prefix ?= /usr/local

all: build

build: ## build the library and the command (build/release)
	@sh scripts/install-deps.sh build
	@sh scripts/build.sh release

test: ## everything that CI runs
	@sh scripts/test.sh

demo: ## fetch a real model, fine-tune it, show what changed
	@sh scripts/demo.sh

demo-compare: ## the same with all layers and with random layers beside IST
	@sh scripts/demo-compare.sh

install: build ## install under $(prefix); DESTDIR is honoured
	cmake --install build/release --prefix $(prefix)

clean: ## remove what was built (the fetched model in .cache stays)
	rm -rf build out

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
