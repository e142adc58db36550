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

/// Paths as they are on machines of developers, about two thousand.
fn corpus() -> Vec<String> {
    let roots = [
        "",
        "/home",
        HOME,
        "/root",
        WORK,
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
    let places = [
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
    roots
        .iter()
        .flat_map(|root| places.iter().map(move |place| format!("{root}{place}")))
        .map(|path| if path.is_empty() { "/".to_owned() } else { path })
        .collect()
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
        println!("{name}: {all} verdicts, {:.2}% held", f64::from(held) * 100.0 / f64::from(all));
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
    for (name, policy, lowered) in shipped() {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            std::hint::black_box(policy.lower(&hidden(), LowerOptions::default()).unwrap());
            best = best.min(start.elapsed());
        }
        println!(
            "{name}: {} rules, {} cells ({} KiB), {} words, {} image classes, {} literals, {best:?}",
            policy.policy().rules().len(),
            lowered.cells.len(),
            lowered.cells.len() * 8 / 1024,
            lowered.words.len(),
            lowered.image_classes,
            lowered.literals.len(),
        );
    }
}
