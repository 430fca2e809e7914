# The two commands: `make run` builds and starts the server, `make test` runs every test.
# Both install what is missing first (scripts/setup says what).

.PHONY: run build test lint bench

# Pass arguments on: make run ARGS="--config my.toml"
run: build
	./target/release/antiphon $(ARGS)

build:
	@scripts/setup build
	cargo build --release --locked --workspace --bins

test:
	@scripts/setup test
	scripts/test $(ARGS)

lint:
	@scripts/setup build
	scripts/lint

bench:
	@scripts/setup build
	cargo bench --locked -p antiphon-core $(ARGS)
	cargo bench --locked -p antiphon --bench mixing
