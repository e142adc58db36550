//! What an open costs. With `VMTEST_ICOUNT=1` the guest's nanoseconds are instructions.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use gait::kernel_programs::{LoadOptions, NamedPath, Programs, Tables};
use gait_ebpf::layout::verdict;

use super::tables::{Policy, every};
use super::tree::{c, start_with};

const ROUNDS: u32 = 2_000;

/// Nanoseconds of one open and close.
fn one(path: &str) -> i32 {
    let path = c(path);
    let mut best = u128::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            // SAFETY: a NUL-terminated path, and the descriptor that it gives.
            unsafe { libc::close(libc::open(path.as_ptr(), libc::O_RDONLY)) };
        }
        best = best.min(started.elapsed().as_nanos() / u128::from(ROUNDS));
    }
    i32::try_from(best).unwrap()
}

/// So many files, open.
fn others(count: usize) -> Vec<fs::File> {
    let most = libc::rlimit { rlim_cur: 20_000, rlim_max: 20_000 };
    // SAFETY: a live `rlimit`.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) }, 0);
    fs::create_dir_all("/others").unwrap();
    (0..count).map(|number| fs::File::create(format!("/others/{number}")).unwrap()).collect()
}

pub(crate) fn measure() {
    // The first lies on a file system of its own, the second on that of the root.
    let paths = ["/tmp/d1/d2/d3/d4/d5/d6/f", "/d1/d2/d3/d4/d5/d6/d7/f"];
    for path in paths {
        fs::create_dir_all(path.rsplit_once('/').unwrap().0).unwrap();
        fs::write(path, "x").unwrap();
    }
    // What a kernel does after its start is over.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let bare = paths.map(one);
    let mut programs = Programs::load(&LoadOptions { cells: 1 << 21, ..LoadOptions::default() }).unwrap();
    let outside = paths.map(one);
    let show = |what: &str, costs: &[i32]| {
        for ((path, cost), bare) in paths.iter().zip(costs).zip(bare) {
            println!("{what:<28} {path:<26} {cost:>7}  x{:.3}", f64::from(*cost) / f64::from(bare));
        }
    };
    show("nothing attached", &bare);
    show("outside", &outside);
    let mut inside = |what: &str, tables: &Tables<'_>| {
        let tree = start_with(&mut programs, tables, || paths.map(one).to_vec());
        tree.go();
        let (costs, _) = tree.end(&mut programs);
        show(what, &costs);
    };
    inside("inside, silent", &Policy::new(every(verdict::SILENT)).done().tables());
    inside("inside, told", &Policy::new(every(verdict::ALLOW)).done().tables());
    // Ten thousand rules, each on an object of its own.
    let mut policy = Policy::new(every(verdict::SILENT));
    for number in 0..10_000 {
        policy = policy.rule(&format!("/rules/d{}/f{number}", number % 100), every(verdict::BLOCK));
    }
    let policy = policy.done();
    let mut tables = policy.tables();
    let kept = others(10_000);
    let identities: Vec<_> = (0..)
        .zip(&kept)
        .map(|(name, file)| {
            let descriptor = u32::try_from(file.as_raw_fd()).unwrap();
            NamedPath { descriptor, state: tables.paths, name }
        })
        .collect();
    tables.identities = &identities;
    tables.holder = std::process::id();
    inside("inside, silent, 10000 rules", &tables);
}
