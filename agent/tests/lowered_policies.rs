//! The shipped policies in the kernel's tables: right, small, and quickly made; and policies that are too large.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::time::{Duration, Instant};

use gait_agent::action::{Action, Object};
use gait_agent::endpoint::{Operation, TargetKind};
use gait_agent::gate::Verdict;
use gait_agent::intent::SessionFacts;
use gait_agent::policy::{
    CompiledPolicy, ExampleAction, LowerOptions, Lowered, Policy, SHIPPED, Vars, Why, verdict,
};

const HOME: &str = "/home/user";
const WORK: &str = "/home/user/project";

fn compile(policy: &Policy) -> Option<CompiledPolicy> {
    let facts = SessionFacts { identity: "uid:1000".into(), workspace: WORK.into(), run_id: "run_x".into() };
    let protect = vec![format!("{WORK}/.gait"), "/home/user/.config/gait".to_owned()];
    CompiledPolicy::compile(policy, &facts, &Vars { protect, ..Vars::default() }).ok()
}

fn hidden() -> Vec<Vec<u8>> {
    vec![b"/home/user/.config/gait/keys".to_vec()]
}

/// Every shipped policy that `gait exec` takes.
fn shipped() -> impl Iterator<Item = (&'static str, CompiledPolicy, Lowered)> {
    SHIPPED.iter().filter_map(|&(name, _)| {
        let policy = compile(&Policy::load(name).unwrap())?;
        let lowered = policy.lower(&hidden(), LowerOptions::default()).unwrap();
        Some((name, policy, lowered))
    })
}

fn operations() -> impl Iterator<Item = Operation> {
    Operation::ALL.iter().copied().filter(|operation| operation.target_kind() == TargetKind::Path)
}

/// Panics where the tables say something else than the gate; returns whether they decided.
fn decides(policy: &CompiledPolicy, found: u8, action: &Action<'_>) -> bool {
    let want = policy.decide_hiding(&hidden(), action).verdict();
    match found {
        verdict::HOLD => return false,
        verdict::BLOCK => assert_eq!(want, Verdict::Block, "{action:?}"),
        _ => assert_eq!(want, Verdict::Allow, "{action:?}"),
    }
    true
}

const ROOTS: [&str; 21] = [
    "",
    "/home",
    "/root",
    "/etc",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/var",
    "/var/lib",
    "/tmp",
    "/run",
    "/dev",
    "/proc",
    "/proc/self",
    "/proc/[pid]",
    "/sys",
    "/home/other",
    "/opt/x",
    "/run/user/1000",
    "/lib64",
];

const PLACES: [&str; 101] = [
    "",
    "/.ssh",
    "/.ssh/id_ed25519",
    "/.ssh/id_ed25519.pub",
    "/.ssh/config",
    "/.gnupg/x",
    "/.aws/credentials",
    "/.config",
    "/.config/gh/hosts.yml",
    "/.config/systemd/user/x.service",
    "/.config/nvim/init.lua",
    "/.bashrc",
    "/.bash_history",
    "/.profile",
    "/.netrc",
    "/.npmrc",
    "/.cargo",
    "/.cargo/registry/src/a/b.rs",
    "/.cargo/credentials.toml",
    "/.cargo/.package-cache",
    "/.cache/pip/x",
    "/.claude/settings.json",
    "/.claude/projects/a.jsonl",
    "/.vscode/tasks.json",
    "/.vscode/x",
    "/.git",
    "/.git/config",
    "/.git/hooks",
    "/.git/hooks/pre-commit",
    "/.git/hooks/pre-commit.sample",
    "/.git/objects/ab/cd",
    "/sub/.git/config",
    "/sub/.git/modules/x/config",
    "/.git/worktrees/w/config.worktree",
    "/.env",
    "/.env.example",
    "/.env.local",
    "/.envrc",
    "/.mcp.json",
    "/a.pem",
    "/deep/er/key.p12",
    "/cacert.pem",
    "/src/main.rs",
    "/target/debug/build/x",
    "/node_modules/.bin/tsc",
    "/shadow",
    "/passwd",
    "/hosts",
    "/sudoers.d/x",
    "/cron.d/job",
    "/cron.daily/x",
    "/ssl/private/k",
    "/bin/sh",
    "/bin/sudo",
    "/sudo",
    "/su",
    "/git",
    "/ld-linux-x86-64.so.2",
    "/ld-2.31.so",
    "/x86_64-linux-gnu/ld-musl-x.so",
    "/python3.11",
    "/bin/crontab",
    "/share/man/a b.gz",
    "/null",
    "/pts/3",
    "/pts/[n]",
    "/shm/x",
    "/mem",
    "/environ",
    "/maps",
    "/task/[tid]/comm",
    "/task/[tid]/environ",
    "/comm",
    "/fd/3",
    "/status",
    "/docker.sock",
    "/run/docker.sock",
    "/containerd/containerd.sock",
    "/bus",
    "/systemd/private",
    "/ssh-abc/agent.1",
    "/tmux-1000/default",
    "/.X11-unix/X0",
    "/dbus/system_bus_socket",
    "/app/x.sock",
    "/gait/keys/private",
    "/.config/gait/keys/k",
    "/.config/gait/x",
    "/.gait/runs/1",
    "/snap/firefox/x",
    "/.var/app/org.mozilla.firefox/x",
    "/.mozilla/firefox/p/cookies.sqlite",
    "/.local/share/keyrings/k",
    "/.local/state/x",
    "/.local/bin/x",
    "/go/pkg/mod/x.pem",
    "/x ",
    "/tab\t",
    "/memfd:x",
    "/.lesshst",
    "/.viminfz.tmp",
];

/// Paths as they are on machines of developers, about two thousand.
fn corpus() -> Vec<String> {
    let all = ROOTS.iter().flat_map(|root| PLACES.iter().map(move |place| format!("{root}{place}")));
    all.map(|path| if path.is_empty() { "/".to_owned() } else { path }).collect()
}

const IMAGES: [&str; 4] = ["", "/usr/bin/git", "/usr/lib/git-core/git-remote-https", "/usr/bin/python3"];

#[test]
fn they_say_what_the_gate_says() {
    let paths = corpus();
    assert!(paths.len() > 2_000);
    for (name, policy, lowered) in shipped() {
        let (mut all, mut held) = (0_u32, 0_u32);
        for path in &paths {
            for operation in operations() {
                for image in IMAGES {
                    let argv = (operation == Operation::Exec).then_some(&b"git\0config\0core.pager\0"[..]);
                    let action = Action {
                        operation,
                        object: Object::Path(path.as_bytes()),
                        image: image.as_bytes(),
                        argv,
                    };
                    let found = lowered.verdict(path.as_bytes(), image.as_bytes(), operation);
                    all += 1;
                    held += u32::from(!decides(&policy, found, &action));
                }
            }
        }
        let share = f64::from(held) / f64::from(all);
        println!("{name}: {all} verdicts, {:.2} % held", 100.0 * share);
        // What nobody needs to agree to is decided by the tables, but for arguments: one operation in 22.
        if matches!(name, "ci" | "locked-down" | "observe") {
            assert!(share < 0.047, "{name}: {share}");
        }
        for note in &lowered.held {
            let rule =
                note.rule.as_ref().map_or_else(|| "(default)".into(), |(rule, at)| format!("{rule} {at}"));
            println!(
                "   {rule}: {} {:?}",
                note.why,
                note.operations.iter().map(|op| op.as_str()).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn they_are_small_and_quickly_made() {
    // Cells, words, share of verdicts on the corpus; with a fifth to spare.
    let most = [
        ("coding-agent", 64_000),
        ("ci", 60_000),
        ("locked-down", 8_000),
        ("observe", 450),
        ("secrets", 26_000),
        ("persistence", 4_200),
        ("sockets", 3_500),
    ];
    for (name, policy, lowered) in shipped() {
        let start = Instant::now();
        std::hint::black_box(policy.lower(&hidden(), LowerOptions::default()).unwrap());
        println!(
            "{name}: {} rules, {} cells ({} KiB), {} words, {} image classes, {} literals, {:?}",
            policy.policy().rules().len(),
            lowered.cells.len(),
            lowered.cells.len() * 8 / 1024,
            lowered.words.len(),
            lowered.image_classes,
            lowered.literals.len(),
            start.elapsed(),
        );
        if let Some((_, most)) = most.iter().find(|(known, _)| *known == name) {
            assert!(lowered.cells.len() <= *most, "{name}: {} cells", lowered.cells.len());
        }
        assert!(lowered.words.len() <= 200, "{name}: {} words", lowered.words.len());
        assert!(lowered.image_classes <= 3, "{name}: {} classes of images", lowered.image_classes);
    }
}

#[test]
fn examples_are_decided_as_they_say() {
    let bind = |text: &str| {
        let vars =
            [("${workspace}", WORK), ("${home}", HOME), ("${tmp}", "/tmp"), ("${run_dir}", "/run/user/1000")];
        vars.iter().fold(text.replace("${uid}", "1000"), |text, (name, value)| text.replace(name, value))
    };
    let mut decided = 0;
    for (name, policy, lowered) in shipped() {
        for example in policy
            .policy()
            .rules()
            .iter()
            .flat_map(|rule| rule.examples.matches.iter().chain(&rule.examples.not_match))
        {
            let example = bind(example);
            let (class, object) = example.split_once(' ').unwrap();
            let Ok(example) = ExampleAction::parse(class, object) else { continue };
            let action = example.action();
            let Object::Path(path) = action.object else { continue };
            decided +=
                usize::from(decides(&policy, lowered.verdict(path, action.image, action.operation), &action));
        }
        // The gate was asked about every region and never said anything else.
        let doubt = |why| matches!(why, Why::Doubt | Why::NoWitness);
        assert!(!lowered.held.iter().any(|held| doubt(held.why)), "{name}: {:?}", lowered.held);
    }
    assert!(decided > 350, "{decided}");
}

#[test]
fn what_is_hidden_is_blocked_by_any_path() {
    let (_, _, lowered) = shipped().find(|(name, ..)| *name == "observe").unwrap();
    let keys = hidden().remove(0);
    let below = [&keys[..], b"/private.key"].concat();
    assert_eq!(lowered.verdict(&below, b"", Operation::Read), verdict::BLOCK);
    assert_eq!(lowered.verdict(b"/home/user/.config/gait/keys2", b"", Operation::Read), verdict::ALLOW);
    let literal = lowered.literals.iter().find(|literal| literal.path == keys).unwrap();
    assert_eq!(lowered.verdict_below(literal.state, b"/private.key", b"", Operation::Read), verdict::BLOCK);
    assert_eq!(lowered.state_after(&keys), Some(literal.state));
}

fn parse(text: &str) -> CompiledPolicy {
    compile(&Policy::parse("big", text).unwrap_or_else(|errors| panic!("{errors}"))).unwrap()
}

fn read(policy: &CompiledPolicy, lowered: &Lowered, path: &str) -> u8 {
    let action =
        Action { operation: Operation::Read, object: Object::Path(path.as_bytes()), image: b"", argv: None };
    let found = lowered.verdict(path.as_bytes(), b"", Operation::Read);
    assert!(decides(policy, found, &action), "{path} is held");
    found
}

#[test]
fn ten_thousand_patterns_fit() {
    let mut text =
        "default_verdict: allow\nrules:\n  - {name: many, effect: block, match: {paths: [".to_owned();
    for at in 0..10_000 {
        let end = if at % 2 == 0 { "" } else { "/**" };
        text.push_str(&format!("/srv/customer-{}/project-{at}{end},", at % 100));
    }
    text.push_str("]}}\n");
    let policy = parse(&text);
    let start = Instant::now();
    let lowered = policy.lower(&[], LowerOptions::default()).unwrap();
    println!("10,000 patterns: {} cells, {:?}", lowered.cells.len(), start.elapsed());
    // 800 KiB: nine characters in ten are shared.
    assert!(lowered.cells.len() < 100_000, "{}", lowered.cells.len());
    assert!(lowered.literals.len() >= 10_000);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(read(&policy, &lowered, "/srv/customer-42/project-142"), verdict::BLOCK);
    assert_eq!(read(&policy, &lowered, "/srv/customer-42/project-142/x"), verdict::ALLOW);
    assert_eq!(read(&policy, &lowered, "/srv/customer-43/project-143/x"), verdict::BLOCK);
    assert_eq!(read(&policy, &lowered, "/srv/customer-42/project-143/x"), verdict::ALLOW);
}

#[test]
fn ten_thousand_rules_fit() {
    let mut text = "default_verdict: block\nrules:\n".to_owned();
    for at in 0..10_000 {
        let effect = if at % 3 == 0 { "block" } else { "allow" };
        let paths = match at % 10 {
            0 => format!("\"/srv/set-{at}/x*\""),
            1 => format!("\"/home/*/set-{at}/**\""),
            _ => format!("\"/data/{}/set-{at}/**\"", at % 7),
        };
        let narrow = if at % 10 == 2 { ", operations: [read, list]" } else { "" };
        text.push_str(&format!(
            "  - {{name: r{at}, effect: {effect}, match: {{paths: [{paths}]{narrow}}}}}\n"
        ));
    }
    let start = Instant::now();
    let policy = parse(&text);
    println!("10,000 rules: read and compiled in {:?}", start.elapsed());
    let start = Instant::now();
    let lowered = policy.lower(&[], LowerOptions::default()).unwrap();
    println!(
        "10,000 rules: {} cells, {} words, {:?}",
        lowered.cells.len(),
        lowered.words.len(),
        start.elapsed()
    );
    assert!(lowered.cells.len() < 300_000, "{}", lowered.cells.len());
    let paths = [
        ("/data/3/set-9999/a", verdict::BLOCK),
        ("/data/2/set-9998/a", verdict::ALLOW),
        ("/data/4/set-9998/a", verdict::BLOCK),
        ("/data/0/set-9982/a", verdict::ALLOW),
        ("/srv/set-9980/xy", verdict::ALLOW),
        ("/srv/set-9990/xy", verdict::BLOCK),
        ("/srv/set-9980/y", verdict::BLOCK),
        ("/home/me/set-9991/a/b", verdict::ALLOW),
        ("/home/set-9991/a", verdict::BLOCK),
        ("/data/0/set-7/a", verdict::ALLOW),
    ];
    for (path, want) in paths {
        assert_eq!(read(&policy, &lowered, path), want, "{path}");
    }
    // The same path, and a rule that is for reading only.
    let write = Action {
        operation: Operation::Write,
        object: Object::Path(b"/data/0/set-9982/a"),
        image: b"",
        argv: None,
    };
    assert_eq!(lowered.verdict(b"/data/0/set-9982/a", b"", Operation::Write), verdict::BLOCK);
    assert_eq!(policy.decide(&write).verdict(), Verdict::Block);
}

#[test]
fn rules_with_trees_anywhere_fit() {
    let mut text = "default_verdict: block\nrules:\n".to_owned();
    for at in 0..500 {
        let effect = if at % 3 == 0 { "block" } else { "allow" };
        // Trees anywhere cost their number squared.
        let deep =
            if at % 20 == 0 { format!(", \"**/name-{at}/**\", \"**/*.kind{at}\"") } else { String::new() };
        text.push_str(&format!(
            "  - {{name: r{at}, effect: {effect}, match: {{paths: [\"/data/{}/set-{at}/**\", \"/srv/set-{at}/x*\", \
             \"/home/*/set-{at}/**\"{deep}]}}}}\n",
            at % 7
        ));
    }
    let policy = parse(&text);
    let start = Instant::now();
    let lowered = policy.lower(&[], LowerOptions::default()).unwrap();
    println!("500 rules: {} cells, {:?}", lowered.cells.len(), start.elapsed());
    assert!(lowered.cells.len() < 300_000, "{}", lowered.cells.len());
    // Whichever of the rules is the first: the gate knows.
    let paths = [
        "/data/1/set-1/a",
        "/data/3/set-3/a",
        "/data/1/set-3/a",
        "/srv/set-4/xy",
        "/srv/set-4/y",
        "/x/name-400/y",
        "/x/name-60/y/name-400/z",
        "/x/name-400/y/name-60/z",
        "/x/name-400/y/z.kind60",
        "/x/name-60/z.kind400",
        "/home/me/set-7/a.kind0",
        "/home/me/set-8/a",
    ];
    let found: Vec<u8> = paths.iter().map(|path| read(&policy, &lowered, path)).collect();
    assert_eq!(found.iter().filter(|&&found| found == verdict::ALLOW).count(), 8, "{found:?}");
}

#[test]
fn what_does_not_fit_is_said_with_its_place() {
    let text = "default_verdict: allow\nexec: {protect: []}\nrules:\n\
                \x20 - {name: fine, effect: block, match: {paths: [\"/a/**\"]}}\n\
                \x20 - {name: wild, effect: block, match: {paths: [\"/**/a/*/*/*/*/*/*/*/*/*/*/*/*/b\"]}}\n\
                \x20 - {name: fine too, effect: block, match: {paths: [\"/b/**\"]}}\n";
    let policy = parse(text);
    let options = LowerOptions { max_states: 1_000, ..LowerOptions::default() };
    let error = policy.lower(&[], options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "big:5: rule `wild`: its patterns need more than 1000 states in the kernel; write fewer wildcards inside of \
         names and fewer `**` in the middle of patterns, or use another backend"
    );
    let error = policy.lower(&[], LowerOptions { max_cells: 50, ..LowerOptions::default() }).unwrap_err();
    assert_eq!((error.rule, error.what), (None, "cells"));
}

#[test]
fn every_index_is_in_range() {
    for (name, _, lowered) in shipped() {
        let cells = lowered.cells.len() as u64;
        let half = |at: u64| lowered.cells[usize::try_from(at).unwrap()];
        // Every state that can be reached, by every byte and every class.
        let mut todo = vec![(lowered.images, false), (lowered.paths, false), (lowered.names, true)];
        let mut seen = std::collections::BTreeSet::new();
        let mut classes = 0;
        while let Some((state, is_name)) = todo.pop() {
            if !seen.insert((is_name, state)) {
                continue;
            }
            let (base, fallback) = (half(state.into()) & 0xffff_ffff, half(state.into()) >> 32);
            let value = half(u64::from(state) + 1);
            assert!(state % 2 == 0 && value >> 32 == 0, "{name}: {state}");
            classes = if is_name { classes.max(value + 1) } else { classes };
            let symbols = if is_name { 256 } else { classes };
            assert!(base + symbols <= cells, "{name}: state {state} looks at {base} + {symbols} of {cells}");
            todo.push((u32::try_from(fallback).unwrap(), is_name));
            let edges = (0..symbols)
                .map(|symbol| half(base + symbol))
                .filter(|edge| edge & 0xffff_ffff == u64::from(state));
            for edge in edges {
                todo.push((u32::try_from(edge >> 32).unwrap(), is_name));
            }
            if !is_name {
                let at = (value + 1) * u64::from(lowered.image_classes);
                assert!(
                    at <= lowered.words.len() as u64 || value < u64::from(lowered.image_classes),
                    "{name}"
                );
                // Symbol 0 always falls back.
                assert!(half(base) & 0xffff_ffff != u64::from(state), "{name}: state {state}");
            }
        }
        assert!(seen.len() > 2, "{name}");
    }
}
