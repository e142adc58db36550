//! `gait gate eval` and `gait approve`.

use super::sandbox::Sandbox;

const POLICY: &str = "\
default_verdict: block
rules:
  - name: reads
    effect: allow
    match: {tool_names: [tool.read]}
  - name: dry
    effect: dry_run
    match: {tool_names: [tool.plan]}
  - name: two-people
    effect: require_approval
    min_approvals: 2
    match: {tool_names: [tool.pay]}
  - name: few
    effect: allow
    rate_limit: {requests: 2, window: hour, scope: tool}
    match: {tool_names: [tool.few]}
  - name: vault
    effect: allow
    require_broker_credential: true
    broker_reference: vault.key
    broker_scopes: [read]
    match: {tool_names: [tool.vault]}
  - name: guarded
    effect: require_approval
    require_broker_credential: true
    match: {tool_names: [tool.guarded]}
";

/// A private key, its public half and another one, made of fixed seeds.
pub(super) fn keys(sandbox: &Sandbox) {
    use gait_agent::sign::SigningKey;
    let key = SigningKey::from_seed([7; 32]);
    sandbox.write("private.key", &key.to_file_text());
    sandbox.write("public.key", &key.verify_key().to_file_text());
    sandbox.write("other.key", &SigningKey::from_seed([8; 32]).to_file_text());
}

fn intent(tool: &str, risk: &str) -> String {
    format!(
        r#"{{"schema_id": "gait.gate.intent_request", "schema_version": "1.0.0",
            "created_at": "2026-01-02T03:04:05Z", "producer_version": "t", "tool_name": "{tool}",
            "args": {{"a": 1}}, "targets": [{{"kind": "path", "value": "/w/a", "operation": "read"}}],
            "context": {{"identity": "ann", "workspace": "/w", "risk_class": "{risk}"}}}}"#
    )
}

pub(super) fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", POLICY);
    for tool in ["read", "plan", "pay", "few", "vault", "guarded", "none"] {
        sandbox.write(&format!("{tool}.json"), &intent(&format!("tool.{tool}"), "low"));
    }
    keys(&sandbox);
    sandbox
}

/// Latency and signatures change from run to run.
macro_rules! assert_story {
    ($sandbox:expr) => {
        let filters = vec![
            (r"\d{4}-\d\d-\d\dT\d\d:00:00Z\|tool", "<hour>|tool"),
            (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "<time>"),
            (r"\|<time>\|", "|<hour>|"),
            (r#""key_id":"[0-9a-f]{64}""#, r#""key_id":"<key id>""#),
            (r"approval_[0-9a-f]{24}", "approval_<token id>"),
            (r#""approval_ref":"[0-9a-f,]{24,}""#, r#""approval_ref":"<token ids>""#),
            (r#""token_id":"[0-9a-f]{24}""#, r#""token_id":"<token id>""#),
        ];
        insta::with_settings!({filters => filters}, {
            insta::assert_snapshot!($sandbox.story());
        });
    };
}

#[test]
fn each_verdict_has_its_exit_code() {
    let mut sandbox = sandbox();
    for (tool, exit) in [("read", 0), ("plan", 0), ("pay", 4), ("none", 3)] {
        assert_eq!(sandbox.gait(&format!("gate eval --policy p.yaml --intent {tool}.json")).exit, exit);
        let line = format!("gate eval -policy p.yaml -intent {tool}.json -trace-out t.json -json");
        let answered = sandbox.gait(&line);
        assert_eq!((answered.exit, &answered.json()["ok"]), (exit, &true.into()), "{tool}");
    }
    sandbox.env("GAIT_GATE_EVAL_EXIT", "reference");
    assert_eq!(sandbox.gait("gate eval --policy p.yaml --intent none.json").exit, 0);
    assert_eq!(sandbox.gait("gate eval --policy p.yaml --intent pay.json").exit, 4);
    assert_story!(sandbox);
}

#[test]
fn the_trace_is_signed_and_says_what_was_answered() {
    let mut sandbox = sandbox();
    let answer = sandbox
        .gait("gate eval --policy p.yaml --intent none.json --key-mode prod --private-key private.key --json")
        .json();
    let path = answer["trace_path"].as_str().unwrap().to_owned();
    assert_eq!(path, format!("trace_{}.json", answer["trace_id"].as_str().unwrap()));
    assert_eq!(sandbox.gait(&format!("trace verify {path} --public-key public.key")).exit, 0);
    let trace: serde_json::Value = serde_json::from_str(&sandbox.read(&path)).unwrap();
    for key in ["verdict", "policy_digest", "intent_digest", "reason_codes", "correlation_id", "trace_id"] {
        assert_eq!(trace[key], answer[key], "{key}");
    }
    assert!(trace["latency_ms"].as_f64().unwrap() > 0.0);
    assert!(trace.get("enforced").is_none());
}

#[test]
fn a_simulation_lets_pass_and_says_so_in_the_trace() {
    let mut sandbox = sandbox();
    sandbox.gait("gate eval --policy p.yaml --intent none.json --simulate --trace-out t.json");
    let answered =
        sandbox.gait("gate eval --policy p.yaml --intent none.json --simulate --trace-out t.json --json");
    assert_eq!(answered.exit, 0);
    let trace: serde_json::Value = serde_json::from_str(&sandbox.read("t.json")).unwrap();
    assert_eq!((&trace["verdict"], &trace["enforced"]), (&"allow".into(), &false.into()));
    assert_eq!(trace["simulated_verdict"], "block");
    assert_story!(sandbox);
}

#[test]
fn approvals_of_two_people_lift_the_verdict() {
    let mut sandbox = sandbox();
    let eval =
        "gate eval --policy p.yaml --intent pay.json --trace-out t.json --approval-audit-out a.json --json";
    let asked = sandbox.gait(&format!("{eval} --approval-public-key public.key")).json();
    let digests = format!(
        "--intent-digest {} --policy-digest {}",
        asked["intent_digest"].as_str().unwrap(),
        asked["policy_digest"].as_str().unwrap()
    );
    let approve = |sandbox: &mut Sandbox, who: &str, key: &str| {
        let line = format!(
            "approve {digests} --ttl 1h --scope tool:tool.pay --approver {who} --reason-code ok --out {who}.json \
             --key-mode prod --private-key {key} --json"
        );
        assert_eq!(sandbox.gait(&line).exit, 0);
    };
    approve(&mut sandbox, "ann", "private.key");
    approve(&mut sandbox, "bob", "private.key");
    approve(&mut sandbox, "eve", "other.key");
    let with = |tokens: &str| format!("{eval} --approval-public-key public.key {tokens}");
    assert_eq!(sandbox.gait(&with("--approval-token ann.json")).exit, 4);
    assert_eq!(sandbox.gait(&with("--approval-token-chain ann.json,ann.json")).exit, 4);
    assert_eq!(sandbox.gait(&with("--approval-token-chain ann.json,eve.json")).exit, 4);
    let audit: serde_json::Value = serde_json::from_str(&sandbox.read("a.json")).unwrap();
    assert_eq!(audit["entries"][1]["error_code"], "approval_token_signature_invalid");
    assert_eq!(audit["approved"], false);
    let granted = sandbox.gait(&with("--approval-token ann.json --approval-token-chain bob.json,eve.json"));
    assert_eq!((granted.exit, &granted.json()["verdict"]), (0, &"allow".into()));
    let audit: serde_json::Value = serde_json::from_str(&sandbox.read("a.json")).unwrap();
    assert_eq!((&audit["approved"], &audit["approvers"]), (&true.into(), &serde_json::json!(["ann", "bob"])));
    assert_story!(sandbox);
}

#[test]
fn an_approval_for_something_else_grants_nothing() {
    let mut sandbox = sandbox();
    let zeros = "0".repeat(64);
    let line = format!(
        "approve --intent-digest {zeros} --policy-digest {zeros} --ttl 1h --scope * --approver ann --reason-code ok \
         --out ann.json --key-mode prod --private-key private.key"
    );
    assert_eq!(sandbox.gait(&line).exit, 0);
    let eval = "gate eval --policy p.yaml --intent pay.json --approval-token ann.json --approval-public-key public.key";
    let answered = sandbox.gait(&format!("{eval} --json"));
    assert_eq!(answered.exit, 4);
    let reasons = answered.json()["reason_codes"].to_string();
    assert!(reasons.contains("approval_token_intent_mismatch"), "{reasons}");
}

#[test]
fn rate_limits_hold_across_processes() {
    let mut sandbox = sandbox();
    let eval = "gate eval --policy p.yaml --intent few.json --trace-out t.json --json";
    for (exit, remaining) in [(0, 1), (0, 0), (3, 0)] {
        let answered = sandbox.gait(eval);
        assert_eq!((answered.exit, &answered.json()["rate_limit_remaining"]), (exit, &remaining.into()));
    }
    assert!(sandbox.path(".gait-out/gate_rate_limits.json").exists());
    sandbox.write("broken.json", "{}");
    assert_eq!(sandbox.gait(&format!("{eval} --rate-limit-state broken.json")).exit, 6);
    assert_story!(sandbox);
}

#[test]
fn credentials_are_named_and_never_held() {
    let mut sandbox = sandbox();
    let eval = "gate eval --policy p.yaml --intent vault.json --trace-out t.json --credential-evidence-out c.json --json";
    assert_eq!(sandbox.gait(eval).exit, 3);
    assert!(!sandbox.path("c.json").exists());
    assert_eq!(sandbox.gait(&format!("{eval} --credential-broker stub")).exit, 0);
    assert_eq!(sandbox.gait(&format!("{eval} --credential-broker env")).exit, 3);
    let unapproved = eval.replace("vault.json", "guarded.json");
    std::fs::remove_file(sandbox.path("c.json")).unwrap();
    assert_eq!(sandbox.gait(&format!("{unapproved} --credential-broker stub")).exit, 4);
    assert!(!sandbox.path("c.json").exists(), "nothing is issued before the approval");
    sandbox.env("GAIT_BROKER_TOKEN_VAULT_KEY", "hunter2");
    assert_eq!(sandbox.gait(&format!("{eval} --credential-broker env")).exit, 0);
    let record = sandbox.read("c.json");
    assert!(record.contains("env:GAIT_BROKER_TOKEN_VAULT_KEY:") && !record.contains("hunter2"), "{record}");
    sandbox.write("broker.sh", "echo hunter2 >&2; exit 1");
    let command = format!("{eval} --credential-broker command --credential-command /bin/sh");
    let answered = sandbox.gait(&format!("{command} --credential-command-args broker.sh"));
    assert_eq!(answered.exit, 3);
    assert!(!answered.stdout.contains("hunter2"));
    assert_eq!(sandbox.gait(&format!("{eval} --credential-broker command")).exit, 6);
    sandbox.env("GAIT_CREDENTIAL_COMMAND_ALLOWLIST", "vault, /opt/vault");
    assert_eq!(sandbox.gait(&command).exit, 6);
    assert_story!(sandbox);
}

#[test]
fn production_has_preconditions() {
    let mut sandbox = sandbox();
    sandbox.write("risky.yaml", "rules:\n  - {name: risky, effect: allow, match: {risk_classes: [high]}}\n");
    let broker = "rules:\n  - {name: risky, effect: allow, require_broker_credential: true, match: {risk_classes: [high]}}\n";
    sandbox.write("brokered.yaml", broker);
    let prod = "--profile oss-prod --key-mode prod --private-key private.key --trace-out t.json";
    for (line, exit) in [
        (format!("gate eval --policy p.yaml --intent read.json {prod}"), 0),
        (format!("gate eval --policy p.yaml --intent read.json {prod} --simulate"), 6),
        ("gate eval --policy p.yaml --intent read.json --profile oss-prod".to_owned(), 6),
        (format!("gate eval --policy risky.yaml --intent read.json {prod}"), 6),
        (format!("gate eval --policy brokered.yaml --intent read.json {prod}"), 6),
        (format!("gate eval --policy p.yaml --intent pay.json {prod}"), 6),
        (format!("gate eval --policy p.yaml --intent pay.json {prod} --approval-public-key public.key"), 4),
    ] {
        assert_eq!(sandbox.gait(&line).exit, exit, "{line}");
    }
    assert_story!(sandbox);
}

#[test]
fn bad_inputs_are_named_and_leave_nothing_behind() {
    let mut sandbox = sandbox();
    sandbox.write("twice.json", r#"{"tool_name": "a", "tool_name": "b"}"#);
    sandbox.write("empty.json", "");
    sandbox.write("odd.json", &intent("tool.read", "low").replace("\"path\"", "\"planet\""));
    sandbox.write("bad.yaml", "rules:\n  - {name: a, effect: alow}\n");
    sandbox.write("file", "");
    let before = sandbox.files();
    for (line, exit) in [
        ("gate eval --policy p.yaml", 6),
        ("gate eval --policy nothing.yaml --intent read.json", 6),
        ("gate eval --policy bad.yaml --intent read.json --json", 6),
        ("gate eval --policy p.yaml --intent nothing.json", 6),
        ("gate eval --policy p.yaml --intent twice.json", 6),
        ("gate eval --policy p.yaml --intent empty.json --json", 6),
        ("gate eval --policy p.yaml --intent odd.json", 6),
        ("gate eval --policy p.yaml --intent read.json --key-mode prod", 6),
        ("gate eval --policy p.yaml --intent read.json --private-key private.key", 6),
        ("gate eval --policy p.yaml --intent read.json --key-mode prod --private-key public.key", 6),
        ("gate eval --policy p.yaml --intent pay.json --approval-token nothing.json", 6),
        ("gate eval --policy p.yaml --intent pay.json --approval-token read.json", 6),
        ("gate eval --policy p.yaml --intent read.json --trace-out file/t.json", 1),
        ("gate eval --policy p.yaml --intent pay.json --approval-audit-out file/a.json", 1),
        ("approve --ttl 1d", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    assert_eq!(sandbox.files(), before);
    assert_story!(sandbox);
}
