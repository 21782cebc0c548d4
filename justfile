# The menu of commands. `.ci/run` is where those that CI runs are written down.

# Shows the menu.
default:
    @just --list --unsorted

# Plays a whole clinic on this machine: server, desk and phones, with real trial data.
demo *arguments:
    cargo run -p ebb-demo -- {{arguments}}

# Runs every test.
test *arguments:
    cargo test --workspace {{arguments}}

# Shows what clippy has to say; in CI a warning is an error.
lint:
    .ci/run lint

# Formats everything.
fmt:
    cargo fmt --all
    cargo fmt --manifest-path fuzz/Cargo.toml

# Checks who depends on what, licences and sources.
deny:
    .ci/run deny

# Checks the dependencies against known holes (fetches the database).
advisories:
    cargo deny check advisories

# Checks tidiness alone: the rules in tests/tidy.rs. (The whole workspace, so that nothing is rebuilt.)
tidy:
    cargo test --workspace --test tidy

# Lives through so many simulated worlds; the test command does a thousand.
sim seeds="10000" from="1":
    cargo test --workspace --test sim -- --seeds {{seeds}} --from {{from}}

# Lives through one world and tells everything that happens.
sim-one seed:
    cargo test --workspace --test sim -- --seed {{seed}}

# Cuts a failing world down to what its fault needs.
sim-shrink seed:
    cargo test --workspace --test sim -- --seed {{seed}} --shrink

# Plants defects, one after the other, and tells which seed of a simulated world found each.
plant word="" seeds="1000":
    tests/plants/run "{{word}}" {{seeds}}

# Kills servers and devices at random moments, so many times; the test command does a few dozen.
crash kills="1000" seed="1":
    cargo test --workspace --test crash -- --kills {{kills}} --seed {{seed}}

# Attacks a server from the network at full size and judges times and memory; the test command does it small.
abuse *words:
    cargo test --workspace --test abuse -- --full {{words}}

# Fuzzes each target so many seconds, two at a time (needs a nightly compiler).
fuzz seconds="60":
    FUZZ_SECONDS={{seconds}} .ci/run fuzz

# Measures our figures, and the same work on others.
bench *arguments:
    cargo bench -p ebb-tests {{arguments}}

# Writes the library's documentation and the book (needs mdbook).
book:
    .ci/run doc
    mdbook build docs

# Shows which lines the tests reach, all or some, as `just coverage --test sim` (needs cargo-llvm-cov).
coverage *arguments:
    cargo llvm-cov --workspace --open {{arguments}}

# Runs all that CI runs, as CI runs it.
ci:
    .ci/run
