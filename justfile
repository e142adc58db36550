# The front door. `just` lists the recipes.

_default:
    @just --list

# Format and lints: what every commit has to pass
check:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings

# All tests
test *args:
    cargo test --locked --workspace {{ args }}

# The tests on Debian's kernels, in virtual machines
kernels *args:
    ebpf/vmtest/all {{ args }}

# All benchmarks in full (release build; takes some minutes)
bench *args:
    cargo build --locked --release --workspace
    cargo run --locked --release -p gait-bench -- exec {{ args }}
    cargo run --locked --release -p gait-bench -- gate {{ args }}
    cargo run --locked --release -p gait-bench -- policy {{ args }}
    cargo run --locked --release -p gait-bench -- evidence {{ args }}
    cargo run --locked --release -p gait-bench -- regress {{ args }}
    cargo run --locked --release -p gait-bench -- signal {{ args }}

# The demo of the README
demo:
    cargo run --locked --release -- exec -- python3 examples/demo_agent/agent.py

# API documentation, private items included
docs:
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

# Licences, advisories, duplicate and foreign crates (needs cargo-deny)
deny:
    cargo deny check

# Everything that CI does
ci:
    .ci/run
