//! Parsers of outside data over committed seeds and deterministic mutations of them: the fuzz targets without a fuzzer.
//!
//! `GAIT_MUTATIONS=N` multiplies the number of mutations, `GAIT_MUTATIONS_FROM=N` starts elsewhere. What a fuzzer finds
//! goes to `agent/fuzz/regressions/<target>/` and is replayed here.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot read its seeds must fail loudly")]

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "../fuzz/mutate.rs"]
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bodies::{TARGETS, Target};
use mutate::{Dice, mutate};

/// No parser needs as long for what a mutation can be; more means that its time grows faster than its input.
const SLOW: Duration = Duration::from_secs(10);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files of a place, in the order of their names.
fn files(place: &Path) -> Vec<Vec<u8>> {
    if place.is_file() {
        return vec![std::fs::read(place).unwrap()];
    }
    let entries = std::fs::read_dir(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    let mut paths: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

fn run(target: &Target, what: &str, data: &[u8]) {
    let started = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| (target.body)(data))).is_err() {
        let kept = std::env::temp_dir().join(format!("gait-{}-{what}", target.name));
        std::fs::write(&kept, data).unwrap();
        panic!(
            "{} fails on {what}, kept as {}: mend it and put the file into agent/fuzz/regressions/{}/",
            target.name,
            kept.display(),
            target.name
        );
    }
    assert!(started.elapsed() < SLOW, "{} takes {:?} for {what}", target.name, started.elapsed());
}

fn exercise(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds: Vec<_> = target.seeds.iter().flat_map(|place| files(&root().join(place))).collect();
    assert!(!seeds.is_empty());
    for (at, seed) in seeds.iter().enumerate() {
        run(target, &format!("seed-{at}"), seed);
    }
    let regressions = root().join("agent/fuzz/regressions").join(target.name);
    if regressions.is_dir() {
        for (at, data) in files(&regressions).iter().enumerate() {
            run(target, &format!("regression-{at}"), data);
        }
    }
    let from = number("GAIT_MUTATIONS_FROM", 0);
    for at in from..from + target.mutations * number("GAIT_MUTATIONS", 1) {
        let mut dice = Dice::new(at);
        let (seed, other) = (dice.below(seeds.len()), dice.below(seeds.len()));
        run(target, &format!("mutation-{at}"), &mutate(&seeds[seed], &seeds[other], &mut dice));
    }
}

macro_rules! targets {
    ($($name:ident),+) => {
        $(
            #[test]
            fn $name() {
                exercise(stringify!($name));
            }
        )+

        #[test]
        fn every_target_is_run_here_and_under_the_fuzzer() {
            let here = [$(stringify!($name)),+];
            let all: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(here[..], all[..]);
            let manifest = std::fs::read_to_string(root().join("agent/fuzz/Cargo.toml")).unwrap();
            for name in here {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
                let wrapper = std::fs::read_to_string(root().join(format!("agent/fuzz/fuzz_targets/{name}.rs")));
                assert!(wrapper.unwrap().contains(&format!("bodies::{name}(data)")), "{name}");
            }
        }
    };
}

targets!(policy, intent, trace, journal_line, document, run_record, runpack, runpack_entry, key);

/// The same number gives the same bytes, and numbers give different ones.
#[test]
fn mutations_can_be_repeated() {
    let of = |at| mutate(b"{\"a\":[1,2,3]}", b"other", &mut Dice::new(at));
    assert_eq!((0..50).map(of).collect::<Vec<_>>(), (0..50).map(of).collect::<Vec<_>>());
    let distinct: std::collections::BTreeSet<_> = (0..200).map(of).collect();
    assert!(distinct.len() > 120, "{}", distinct.len());
}
