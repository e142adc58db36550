//! `gait policy test`, `validate`, `fmt`, `simulate`, `init` and `gait why`.

use std::os::unix::fs::PermissionsExt;

use super::sandbox::Sandbox;

const POLICY: &str = "\
default_verdict: require_approval
rules:
  - name: no-etc
    effect: block
    justification: Leave the system's files alone; write below the workspace instead.
    match: {endpoint_classes: [fs.write, fs.delete], paths: [/etc/**]}
  - name: own-files
    effect: allow
    match: {endpoint_classes: [fs.read, fs.write, fs.delete], paths: ['${workspace}/**']}
  - name: no-force
    effect: block
    match: {endpoint_classes: [proc.exec], argv: [git, push, --force]}
  - name: programs
    effect: allow
    priority: 1
    match: {endpoint_classes: [proc.exec]}
  - name: code-host
    effect: allow
    match: {endpoint_classes: [net.http], domains: ['*.example.com'], ports: [443]}
";

const INTENT: &str = r#"{"schema_id": "gait.gate.intent_request", "schema_version": "1.0.0",
    "created_at": "2026-01-02T03:04:05Z", "tool_name": "tool.write", "args": {},
    "targets": [{"kind": "path", "value": "VALUE", "endpoint_class": "fs.write"}],
    "context": {"identity": "ann", "workspace": "/w", "risk_class": "low"}}"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", POLICY);
    for (name, value) in [("etc", "/etc/hosts"), ("own", "/w/a"), ("opt", "/opt/a")] {
        sandbox.write(&format!("{name}.json"), &INTENT.replace("VALUE", value));
    }
    sandbox
}

#[test]
fn test_answers_with_the_verdict() {
    let mut sandbox = sandbox();
    for (intent, exit) in [("own", 0), ("etc", 3), ("opt", 4)] {
        assert_eq!(sandbox.gait(&format!("policy test p.yaml {intent}.json")).exit, exit);
        assert_eq!(sandbox.gait(&format!("policy test p.yaml {intent}.json --json")).exit, exit);
    }
    assert_eq!(sandbox.gait("policy test p.yaml").exit, 6);
    assert_eq!(sandbox.gait("policy test p.yaml nothing.json").exit, 6);
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn validate_reports_every_mistake_at_once() {
    let mut sandbox = sandbox();
    assert_eq!(sandbox.gait("policy validate p.yaml").exit, 0);
    assert_eq!(sandbox.gait("policy validate p.yaml --json").exit, 0);
    sandbox.write(
        "bad.yaml",
        "default_verdict: alow\nrules:\n  - name: a\n    effect: block\n    match: {toolnames: [x]}\n    match: {}\n",
    );
    assert_eq!(sandbox.gait("policy validate bad.yaml").exit, 6);
    let findings = sandbox.gait("policy validate bad.yaml --json").json()["findings"].clone();
    assert!(findings.as_array().unwrap().len() >= 3, "{findings}");
    assert_eq!(sandbox.gait("policy validate nothing").exit, 6);
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn every_shipped_policy_is_valid() {
    let mut sandbox = Sandbox::new();
    for (name, _) in gait::policy_source::shipped_policies() {
        assert_eq!(sandbox.gait(&format!("policy validate {name}")).exit, 0, "{}", sandbox.story());
    }
}

#[test]
fn init_writes_a_template_that_is_valid() {
    let mut sandbox = Sandbox::new();
    assert_eq!(sandbox.gait("policy init baseline-highrisk").exit, 0);
    assert_eq!(sandbox.gait("policy validate gait.policy.yaml").exit, 0);
    assert_eq!(sandbox.gait("policy init lowrisk").exit, 6);
    assert_eq!(sandbox.gait("policy init lowrisk --force --json").exit, 0);
    assert_eq!(sandbox.gait("policy init nothing --out x.yaml").exit, 6);
    assert_eq!(sandbox.files(), ["gait.policy.yaml"]);
    sandbox.write("file", "");
    assert_eq!(sandbox.gait("policy init ci --out file/x.yaml").exit, 1);
    let filters = vec![(r"rules=\d+", "rules=<n>")];
    insta::with_settings!({filters => filters}, { insta::assert_snapshot!(sandbox.story()); });
}

#[test]
fn why_names_the_rule_and_its_line() {
    let mut sandbox = sandbox();
    sandbox.write("dir/a", "");
    sandbox.write("bin/git", "");
    std::fs::set_permissions(sandbox.path("bin/git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.env("PATH", &sandbox.path("bin").display().to_string());
    std::os::unix::fs::symlink("/etc", sandbox.path("link")).unwrap();
    for line in [
        "why fs.delete /etc/hosts --policy p.yaml",
        "why fs.delete /etc/hosts --policy p.yaml --json",
        "why fs.write link/hosts --policy p.yaml",
        "why fs.delete link --policy p.yaml",
        "why fs.write dir/new --policy p.yaml",
        "why fs.write dir/new --policy p.yaml --workspace dir --operation create",
        "why proc.exec git --policy p.yaml -- git push --force origin",
        "why proc.exec bin/git --policy p.yaml -- push --force",
        "why proc.exec bin/git --policy p.yaml -- push",
        "why proc.exec bin/git --policy p.yaml",
        "why net.http api.example.com:443 --policy p.yaml",
        "why net.http api.example.com:80 --policy p.yaml",
        "why net.dns api.example.com --policy p.yaml",
        "why other bpf --policy p.yaml",
        // Below the per-user keys, whatever the policy says.
        "why fs.read home/.local/share/gait/keys/gait_private.key --policy p.yaml",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn why_refuses_what_is_no_question() {
    let mut sandbox = sandbox();
    for line in [
        "why",
        "why fs.chmod /a",
        "why ui.click button",
        "why fs.read /a --operation unlink",
        "why net.http example.com",
        "why proc.exec no-such-program",
        "why proc.exec own.json",
        "why fs.read /a --workspace nothing",
        "why fs.read /a --policy nothing.yaml",
    ] {
        assert_eq!(sandbox.gait(line).exit, 6, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

const UNTIDY: &str = "\
rules:
  # Leave it.
  - effect: block   
    name: no-etc
    match: {endpoint_classes: [fs.write], paths: [/etc/**]}


default_verdict: allow # for now
";

#[test]
fn fmt_keeps_comments_mode_and_meaning() {
    let mut sandbox = sandbox();
    sandbox.write("u.yaml", UNTIDY);
    std::os::unix::fs::symlink("u.yaml", sandbox.path("link.yaml")).unwrap();
    std::fs::set_permissions(sandbox.path("u.yaml"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(sandbox.gait("policy fmt u.yaml").exit, 0);
    assert_eq!(sandbox.gait("policy fmt u.yaml --check").exit, 2);
    assert_eq!(sandbox.gait("policy fmt u.yaml --check --json").exit, 2);
    assert_eq!(sandbox.read("u.yaml"), UNTIDY, "nothing was written");
    let before = sandbox.gait("policy validate u.yaml --json").json()["policy_digest"].clone();
    assert_eq!(sandbox.gait("policy fmt link.yaml --write").exit, 0);
    assert_eq!(sandbox.gait("policy validate u.yaml --json").json()["policy_digest"], before);
    assert!(sandbox.path("link.yaml").symlink_metadata().unwrap().is_symlink());
    assert_eq!(sandbox.path("u.yaml").metadata().unwrap().permissions().mode() & 0o777, 0o644);
    let text = sandbox.read("u.yaml");
    assert!(text.starts_with("default_verdict: allow # for now") && text.contains("# Leave it."), "{text}");
    assert_eq!(sandbox.gait("policy fmt u.yaml --check").exit, 0);
    assert_eq!(sandbox.gait("policy fmt u.yaml --write --json").json()["written"], false);
    for line in [
        "policy fmt coding-agent --write",
        "policy fmt nothing.yaml",
        "policy fmt etc.json",
        "policy fmt u.yaml --write --check",
        "policy fmt",
    ] {
        assert_eq!(sandbox.gait(line).exit, 6, "{line}");
    }
    assert_eq!(sandbox.files().iter().filter(|name| name.contains("tmp")).count(), 0);
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn shipped_policies_are_laid_out_as_fmt_does() {
    let mut sandbox = Sandbox::new();
    for (name, _) in gait::policy_source::shipped_policies() {
        assert_eq!(sandbox.gait(&format!("policy fmt {name} --check")).exit, 0, "{}", sandbox.story());
    }
}

#[test]
fn simulate_says_what_would_change_and_how_to_roll_it_out() {
    let mut sandbox = sandbox();
    for name in ["etc", "own", "opt"] {
        let intent = sandbox.read(&format!("{name}.json"));
        sandbox.write(&format!("f/{name}.json"), &intent);
    }
    sandbox.write("f/deep/readme.txt", "no intent");
    sandbox.write("strict.yaml", &POLICY.replace("require_approval", "block"));
    sandbox.write(
        "loose.yaml",
        &POLICY.replace("effect: block\n    justification", "effect: allow\n    justification"),
    );
    for line in [
        "policy simulate --policy p.yaml --baseline p.yaml --fixtures f",
        "policy simulate --policy strict.yaml --baseline p.yaml --fixtures f",
        "policy simulate --policy strict.yaml --baseline p.yaml --fixtures ./f/opt.json,f --json",
        "policy simulate --policy loose.yaml --baseline p.yaml --fixtures f/etc.json,f/own.json",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
    }
    sandbox.write("bad/x.json", "{").write("empty/x.txt", "");
    for line in [
        "policy simulate --policy p.yaml --baseline p.yaml",
        "policy simulate --policy p.yaml --fixtures f",
        "policy simulate --policy nothing.yaml --baseline p.yaml --fixtures f",
        "policy simulate --policy p.yaml --baseline p.yaml --fixtures bad",
        "policy simulate --policy p.yaml --baseline p.yaml --fixtures empty",
        "policy simulate --policy p.yaml --baseline p.yaml --fixtures nothing",
    ] {
        assert_eq!(sandbox.gait(line).exit, 6, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}
