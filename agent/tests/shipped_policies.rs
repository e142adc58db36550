//! The shipped policies: they load, compile, explain themselves, and keep the promises of their first lines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::path::Path;

use gait_agent::action::Action;
use gait_agent::gate::Verdict;
use gait_agent::intent::SessionFacts;
use gait_agent::policy::{CompiledPolicy, ExampleAction, Policy, SHIPPED, Vars};

fn load(name: &str) -> Policy {
    Policy::load(name).unwrap_or_else(|errors| panic!("{errors}"))
}

fn compile(name: &str) -> CompiledPolicy {
    let facts = SessionFacts {
        identity: "uid:1000".into(),
        workspace: "/home/user/project".into(),
        run_id: "run_x".into(),
    };
    CompiledPolicy::compile(&load(name), &facts, &Vars::default()).unwrap()
}

fn decide(policy: &CompiledPolicy, text: &str) -> (Verdict, String) {
    let (class, object) = text.split_once(' ').unwrap();
    let example = ExampleAction::parse(class, object).unwrap();
    let action: Action<'_> = example.action();
    let decision = policy.decide(&action);
    let why = policy.explain(decision);
    (decision.verdict(), why.matched_rule.unwrap_or_else(|| why.reason_codes.join(",")))
}

#[test]
fn every_file_is_shipped_and_every_rule_explains_itself() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    files.sort();
    let mut names: Vec<_> = SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    assert_eq!(files, names);
    for name in names {
        for rule in load(&name).rules() {
            let what = format!("{name}: {}", rule.name);
            assert!(rule.justification.is_some(), "{what} has no justification");
            assert!(!rule.examples.matches.is_empty(), "{what} has no example that matches");
            assert!(!rule.examples.not_match.is_empty(), "{what} has no example that does not match");
        }
    }
}

fn check(policy: &str, cases: &[(Verdict, &str)]) {
    let policy = compile(policy);
    let wrong: Vec<_> = cases
        .iter()
        .map(|(want, text)| (want, text, decide(&policy, text)))
        .filter(|(want, _, got)| got.0 != **want)
        .map(|(want, text, (got, why))| format!("{text}: wanted {want}, got {got} by {why}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn coding_agent_lets_work_happen() {
    use Verdict::Allow;
    let home = "/home/user";
    let work = format!("{home}/project");
    let texts = [
        format!("fs.write:create {work}/src/main.rs"),
        format!("fs.delete {work}/target/debug/x"),
        format!("fs.write:create {work}/.git/objects/ab/cd by /usr/bin/git"),
        format!("fs.write:rename {work}/.git/config by /usr/bin/git"),
        format!("fs.delete:rename {work}/.git/config.lock by /usr/bin/git"),
        format!("fs.write:create {work}/clone/.git/hooks/pre-push.sample by /usr/lib/git-core/git"),
        format!("fs.write:mkdir {work}/clone/.git/hooks by /usr/bin/git"),
        format!("fs.write:mkdir {work}/clone/.git by /usr/bin/git"),
        format!("fs.write:create {work}/.git/worktrees/x/gitdir by /usr/bin/git"),
        format!("fs.write:create {work}/clone/.claude/settings.json by /usr/bin/git"),
        format!("fs.write:create {work}/node_modules/x/.vscode/settings.json by /usr/bin/node"),
        format!("fs.read {work}/.env.example"),
        format!("fs.read {home}/.ssh/known_hosts by /usr/bin/ssh"),
        format!("fs.read {home}/.gitconfig by /usr/bin/git"),
        format!("fs.write:create {home}/.cargo/registry/src/x/key.pem"),
        format!("fs.read {home}/.cargo/registry/src/x/key.pem"),
        format!("fs.write:create {home}/.cargo/git/checkouts/x/y/.git/config by /usr/bin/cargo"),
        format!("fs.write:create {home}/.npm/_cacache/x"),
        format!("fs.write:create {home}/.cache/pip/x"),
        format!("fs.read {home}/.venv/lib/python3/site-packages/certifi/cacert.pem"),
    ];
    let mut cases: Vec<_> = texts.iter().map(|text| (Allow, text.as_str())).collect();
    cases.extend([
        (Allow, "fs.read /etc/ssl/certs/ca-certificates.crt"),
        (Allow, "fs.read /etc/passwd"),
        (Allow, "fs.read /proc/self/status"),
        (Allow, "fs.read /sys/fs/cgroup/cpu.max"),
        (Allow, "fs.write /dev/null"),
        (Allow, "fs.write:chown /dev/pts/1"),
        (Allow, "fs.write:create /tmp/x"),
        (Allow, "fs.write:connect /var/tmp/tmux-1000/default"),
        (Allow, "fs.write:connect /dev/log"),
        (Allow, "proc.exec /usr/bin/make -j4"),
        (Allow, "proc.exec:mmap_exec /usr/lib/x86_64-linux-gnu/libc.so.6"),
        (Allow, "net.http 127.0.0.1:8000"),
        (Allow, "net.http:listen 127.0.0.1:8000"),
        (Allow, "net.http:listen [::1]:0"),
        (Allow, "net.http files.pythonhosted.org:443"),
        (Allow, "net.dns anything.example"),
    ]);
    check("coding-agent", &cases);
}

#[test]
fn coding_agent_stops_what_it_says() {
    use Verdict::{Block, RequireApproval};
    let cases = [
        (Block, "fs.read /home/user/.ssh/id_ed25519"),
        (Block, "fs.read /root/.aws/credentials"),
        (Block, "fs.read:link /home/user/.netrc"),
        (Block, "fs.read /home/user/project/.env"),
        (Block, "fs.delete:rename /home/user/project/.env"),
        (Block, "fs.read /etc/shadow"),
        (Block, "fs.read /home/user/.mozilla/firefox/p/cookies.sqlite"),
        (Block, "fs.read /proc/[pid]/environ"),
        (Block, "fs.write /home/user/.bashrc"),
        (Block, "fs.write:chmod /home/user/.bashrc"),
        (Block, "fs.write:rename /home/user/.ssh/authorized_keys"),
        (Block, "fs.write:create /home/user/.config/systemd/user/x.service"),
        (Block, "fs.write:create /home/user/project/.git/hooks/pre-commit by /usr/bin/git"),
        (Block, "fs.write /home/user/project/.git/config by /usr/bin/python3"),
        (Block, "fs.delete:rename /home/user/project/.git by /usr/bin/mv"),
        (Block, "fs.write:create /home/user/project/.mcp.json by /usr/bin/node"),
        (Block, "fs.write /etc/hosts"),
        (Block, "fs.delete /usr/bin/git"),
        (Block, "fs.write:connect /run/docker.sock"),
        (Block, "fs.write:connect /tmp/ssh-x/agent.1"),
        (Block, "fs.write:connect /tmp/tmux-1000/default"),
        (Block, "fs.write:connect /run/user/1000/bus"),
        (Block, "proc.exec /usr/bin/sudo id"),
        (Block, "proc.exec /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 /bin/ls"),
        (Block, "net.http 169.254.169.254:80"),
        (Block, "other:connect unix:@x"),
        (Block, "other:ptrace 1"),
        (RequireApproval, "fs.write /home/user/notes.txt"),
        (RequireApproval, "net.http evil.example:443"),
        (RequireApproval, "net.http pypi.org@10.0.0.1:443"),
        (RequireApproval, "net.http:listen 0.0.0.0:8000"),
        (RequireApproval, "proc.exec /usr/bin/git config core.hooksPath x"),
    ];
    check("coding-agent", &cases);
}

#[test]
fn observe_stops_nothing() {
    use Verdict::Allow;
    let cases = [
        (Allow, "fs.delete /etc/passwd"),
        (Allow, "fs.write /home/user/.bashrc"),
        (Allow, "proc.exec /usr/bin/sudo"),
        (Allow, "net.http 169.254.169.254:80"),
        (Allow, "net.http:listen [::]:80"),
        (Allow, "net.http evil.example:443"),
        (Allow, "other:connect unix:@x"),
    ];
    check("observe", &cases);
    let policy = compile("observe");
    assert!(policy.exec().env.keeper().keeps(b"AWS_SECRET_ACCESS_KEY"));
    assert!(!policy.can_block_class(gait_agent::endpoint::EndpointClass::FsWrite));
    assert_eq!(policy.floor().write, ["/"]);
    assert!(policy.floor().reads_expressible());
}

#[test]
fn ci_never_asks() {
    let policy = compile("ci");
    assert_eq!(policy.policy().default_verdict(), Verdict::Block);
    for text in [
        "proc.exec /usr/bin/git config core.hooksPath x",
        "net.http evil.example:443",
        "fs.write /home/user/notes",
    ] {
        assert_eq!(decide(&policy, text).0, Verdict::Block, "{text}");
    }
    assert_eq!(decide(&policy, "fs.write /home/user/project/x").0, Verdict::Allow);
}

#[test]
fn locked_down_is_locked_down() {
    use Verdict::{Allow, Block};
    let cases = [
        (Allow, "fs.read /usr/lib/x.so"),
        (Allow, "fs.write /home/user/project/x"),
        (Allow, "proc.exec /usr/bin/python3 x.py"),
        (Block, "fs.read /home/user/project/.env"),
        (Block, "fs.read /home/user/notes"),
        (Block, "fs.write /home/user/.cache/x"),
        (Block, "proc.exec /home/user/project/a.out"),
        (Block, "net.http pypi.org:443"),
        (Block, "net.http 127.0.0.1:80"),
        (Block, "net.dns example.org"),
    ];
    check("locked-down", &cases);
    let policy = compile("locked-down");
    assert!(
        policy.exec().env.keeper().keeps(b"PATH") && !policy.exec().env.keeper().keeps(b"OPENAI_API_KEY")
    );
    assert!(!policy.floor().write.contains(&"/".to_owned()), "{:?}", policy.floor());
    assert!(!policy.floor().reads_expressible());
}

#[test]
fn secret_names_leave_the_environment() {
    let policy = compile("coding-agent");
    let env = &policy.exec().env;
    for name in
        ["GITHUB_TOKEN", "AWS_ACCESS_KEY_ID", "DB_PASSWORD", "STRIPE_SECRET_KEY", "SSH_AUTH_SOCK", "TMUX"]
    {
        assert!(!env.keeper().keeps(name.as_bytes()), "{name}");
    }
    for name in ["PATH", "HOME", "TERM", "ANTHROPIC_API_KEY", "CARGO_HOME", "PYTHONPATH"] {
        assert!(env.keeper().keeps(name.as_bytes()), "{name}");
    }
    assert!(policy.has_argv_rules());
    assert!(!compile("observe").has_argv_rules());
}

#[test]
fn what_protects_the_session_comes_before_every_rule() {
    let facts = SessionFacts { identity: "uid:0".into(), workspace: "/w".into(), run_id: "run_x".into() };
    let vars = Vars { protect: vec!["/w/gait-out/".into()], ..Vars::default() };
    let policy = CompiledPolicy::compile(&load("coding-agent"), &facts, &vars).unwrap();
    for text in ["fs.delete /w/gait-out", "fs.write:create /w/gait-out/run_x/journal.jsonl"] {
        assert_eq!(decide(&policy, text), (Verdict::Block, "protected_path".into()), "{text}");
    }
    assert_eq!(decide(&policy, "fs.write /w/gait-output").0, Verdict::Allow);
}

#[test]
fn what_only_a_tool_gate_has_is_refused() {
    let text = "rules:\n  - name: often\n    effect: allow\n    rate_limit: {requests: 1}\n";
    let facts = SessionFacts { identity: "i".into(), workspace: "/w".into(), run_id: "r".into() };
    let error = CompiledPolicy::compile(&Policy::parse("p.yaml", text).unwrap(), &facts, &Vars::default())
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("p.yaml:2: rule `often` asks for a rate limit"), "{error}");
    // A rule about tools is no matter for the kernel.
    let tools = format!("{text}    match: {{tool_names: [tool.x]}}\n");
    CompiledPolicy::compile(&Policy::parse("p.yaml", &tools).unwrap(), &facts, &Vars::default()).unwrap();
}
