//! What the workspace promises about itself: which crate may use which, and pages that are made from tables.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own workspace must fail loudly")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gait_agent::endpoint::{CATALOG, Preload, Treatment};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Names of the crates in the `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(manifest)).unwrap();
    text.lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| Some(line.split(['.', ' ', '=']).next()?.trim().to_owned()))
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect()
}

#[test]
fn arrows_between_crates_never_turn_round() {
    let agent = dependencies("agent/Cargo.toml");
    for kernel in ["gait", "gait-bench", "nix", "libc", "tokio", "aya", "landlock"] {
        assert!(!agent.iter().any(|name| name == kernel), "agent must not depend on {kernel}");
    }
    let launcher = dependencies("launcher/Cargo.toml");
    assert!(launcher.iter().any(|name| name == "gait-agent"));
    assert!(dependencies("ebpf/Cargo.toml").is_empty(), "the layout depends on nothing");
    assert!(
        !launcher.iter().any(|name| name == "gait-bench"),
        "the launcher must not depend on its benchmarks"
    );
}

#[test]
fn unsafe_stays_at_the_kernel_boundary() {
    let allowed = root().join("launcher/src/sys");
    let mut places = vec![root().join("agent/src"), root().join("launcher/src"), root().join("bench/src")];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !path.starts_with(&allowed) {
                let text = std::fs::read_to_string(&path).unwrap();
                let block = text.lines().any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
                assert!(!block, "unsafe code in {}", path.display());
            }
        }
    }
}

fn coverage_page() -> String {
    let mut page = String::from(
        "# Coverage\n\nMade from `agent/src/endpoint/catalog.rs`; `GAIT_BLESS=1 cargo test -p gait-agent \
         --test workspace` writes it anew.\n\n\
         How a call is answered by the seccomp backend: *on behalf*, gait makes it on descriptors that it has judged; *verified*, judged, \
         continued, and checked before the first instruction of the new image; *scalar*, judged and continued, since \
         no pointer decides; *refused*, never let through while the policy is enforced.\n\n\
         The eBPF backend: *decided*, in the kernel, by tables made from the policy; *held*, as by the seccomp backend, and \
         why.\n\n\
         | row | system calls | becomes | seccomp | eBPF | to know |\n|---|---|---|---|---|---|\n",
    );
    for row in CATALOG {
        let mut operations: Vec<String> =
            row.operations.iter().map(|op| format!("{} {}", op.class(), op.as_str())).collect();
        operations.dedup();
        let treatment = match row.treatment {
            Treatment::OnBehalf => "on behalf",
            Treatment::Verified => "verified",
            Treatment::Scalar => "scalar",
            Treatment::Refused => "refused",
        };
        let preload = match row.preload {
            Preload::Decided => "decided".to_owned(),
            Preload::Partly(why) => format!("partly decided: {why}"),
            Preload::Held(why) => format!("held: {why}"),
        };
        let (calls, operations) = (row.syscalls.join(", "), operations.join(", "));
        writeln!(page, "| {} | {calls} | {operations} | {treatment} | {preload} | {} |", row.id, row.note)
            .unwrap();
    }
    page
}

#[test]
fn the_coverage_page_is_the_catalogue() {
    let place = root().join("docs/coverage.md");
    if std::env::var_os("GAIT_BLESS").is_some() {
        std::fs::write(&place, coverage_page()).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&place).unwrap_or_default(),
        coverage_page(),
        "see the page's first lines"
    );
}
