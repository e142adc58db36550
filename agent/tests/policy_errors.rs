//! What people see when a policy is wrong: every mistake of every file at once, with its place.

#![expect(clippy::expect_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use gait_agent::gate::Verdict;
use gait_agent::policy::{MAX_POLICY_BYTES, Policy};
use proptest::prelude::*;

fn errors(text: &str) -> String {
    Policy::parse("policy.yaml", text).expect_err("the policy must not load").to_string()
}

fn load(files: &[(&str, &str)]) -> Result<Policy, String> {
    let files: BTreeMap<_, _> = files.iter().copied().collect();
    let mut read = |path: &Path| {
        let found = path.to_str().and_then(|path| files.get(path));
        found.map(|text| text.as_bytes().to_vec()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    Policy::load_with("dir/main.yaml", &mut read).map_err(|errors| errors.to_string())
}

#[test]
fn all_mistakes_at_once() {
    let text = r#"
schema_version: 2.0.0
default_verdict: alow
vars: { home: /x, good: /srv, "bad name": x }
fail_closed: { enabled: yes please, required_fields: [target] }
rules:
  - name: one
    efect: allow
    effect: Allow
    match:
      paths: ["/etc/", "~/x", "${nope}/x", "/a[b", "relative", "/a/../b"]
      endpoint_classes: [fs.raed]
      operations: [delete]
      ports: [70000, "9-1", 443]
      addresses: [10.0.0.1/8, example.org]
      domains: ["{a"]
      executables: []
  - effect: block
    priority: high
    priority: 1
  - name: three
    effect: block
    approval: { timeout: 5 minutes, uses: 0, scope: forever }
    endpoint: { action: allow, egress_classes: [fs.read] }
    rate_limit: { window: day }
    justification: "two\nlines"
exec:
  require: { fs.read: maybe }
  evidence: { reads: some }
  limits: { processes: 0 }
  env: { set: { "A=B": x } }
  protect: [x]
"#;
    insta::assert_snapshot!(errors(text));
}

#[test]
fn what_is_not_yaml() {
    insta::assert_snapshot!(errors("rules:\n  - name: [a\n  effect: }\n"));
}

#[test]
fn wrong_examples() {
    let text = r#"
rules:
  - name: tmp
    effect: allow
    match: { endpoint_classes: [fs.write], paths: ["/tmp/**"] }
    examples:
      match: ["fs.write /etc/x", "fs.write tmp", "fs.write /tmp/x", "paint /x"]
      not_match:
        - fs.write /tmp/x
        - fs.read /tmp/x
"#;
    insta::assert_snapshot!(errors(text));
}

#[test]
fn mistakes_of_all_files() {
    let files = [
        ("dir/main.yaml", "extends: [observe, other.yaml, sub/third.yaml, missing.yaml]\nrulez: []\n"),
        ("dir/other.yaml", "extends: [main.yaml]\ndefault_verdict: 5\n"),
        ("dir/sub/third.yaml", "extends: [../sub/./third.yaml]\n"),
    ];
    insta::assert_snapshot!(load(&files).unwrap_err());
}

#[test]
fn a_file_that_is_not_there() {
    let error = Policy::load("observed").unwrap_err().to_string();
    assert!(error.starts_with("observed: cannot read the policy"), "{error}");
    assert!(error.contains("coding-agent, observe"), "{error}");
    let error = Policy::load("/nowhere/x.yaml").unwrap_err().to_string();
    assert!(!error.contains("coding-agent"), "{error}");
}

#[test]
fn too_large_is_refused_before_it_is_parsed() {
    let text = "#".repeat(MAX_POLICY_BYTES + 1);
    assert!(errors(&text).contains("larger than"));
}

#[test]
fn one_rule_too_many_is_one_error() {
    let rules = |count: usize| {
        let rules: String = (0..count).map(|at| format!("- {{name: r{at}, effect: block}}\n")).collect();
        format!("rules:\n{rules}")
    };
    let most = gait_agent::policy::MAX_RULES;
    assert_eq!(Policy::parse("p", &rules(most)).unwrap().rules().len(), most);
    assert!(errors(&rules(most + 1)).contains("a policy may have 16384 rules at most"));
}

#[test]
fn an_empty_policy_asks() {
    let policy = Policy::parse("p", "").unwrap();
    assert_eq!(policy.default_verdict(), Verdict::RequireApproval);
    assert!(!policy.exec().protect.is_empty(), "what `persistence` protects is protected by default");
    assert!(!policy.exec().env.keeper().keeps(b"GITHUB_TOKEN"));
}

#[test]
fn what_is_extended_is_merged_once_and_keeps_its_places() {
    let files = [
        (
            "dir/main.yaml",
            "extends: [a.yaml, b.yaml]\nvars: {where: /srv}\nrules:\n  - {name: m, effect: allow}\n",
        ),
        ("dir/a.yaml", "extends: [c.yaml]\ndefault_verdict: block\nexec: {protect: [/p]}\n"),
        (
            "dir/b.yaml",
            "extends: [./c.yaml]\nexec: {protect: [/q]}\nrules:\n  - {name: z, priority: -1, effect: block}\n",
        ),
        (
            "dir/c.yaml",
            "vars: {where: /opt}\nrules:\n\n  - {name: c, effect: block, match: {paths: ['${where}/**']}}\n",
        ),
    ];
    let policy = load(&files).unwrap();
    let places: Vec<_> = policy.rules().iter().map(|rule| format!("{} {}", rule.name, rule.origin)).collect();
    assert_eq!(places, ["z dir/b.yaml:4", "c dir/c.yaml:4", "m dir/main.yaml:4"]);
    assert_eq!(policy.default_verdict(), Verdict::Block);
    assert_eq!(policy.exec().protect, ["/p", "/q"]);
    let paths = policy.rules()[1].facts.paths.clone().unwrap();
    assert_eq!(paths, ["/opt/**"], "variables stay in their file");
}

#[test]
fn every_key_moves_the_digest_and_base_keys_alone_do_not() {
    let base = "rules:\n  - {name: a, effect: block, match: {endpoint_classes: [fs.read]}}\n";
    let digest = |text: &str| Policy::parse("p", text).unwrap_or_else(|errors| panic!("{errors}")).digest();
    let matched = |key: &str| base.replace("[fs.read]", &format!("[fs.read], {key}"));
    let ruled = |key: &str| base.replace("effect: block", &format!("effect: block, {key}"));
    let mut seen = vec![digest(base)];
    for text in [
        matched("paths: [/a]"),
        matched("not_paths: [/a]"),
        matched("operations: [read]"),
        matched("executables: [/a]"),
        matched("argv: [a, b]"),
        matched("argv: [b, a]"),
        matched("domains: [a]"),
        matched("addresses: [10.0.0.0/8]"),
        matched("ports: [1]"),
        ruled("justification: x"),
        ruled("examples: {match: [fs.read /x]}"),
        ruled("approval: {timeout: 5m}"),
        ruled("approval: {uses: 5}"),
        ruled("approval: {scope: rule}"),
        format!("{base}exec: {{backend: auto}}\n"),
        format!("{base}exec: {{protect: []}}\n"),
        format!("{base}exec: {{require: {{fs.read: absent}}}}\n"),
        format!("{base}exec: {{evidence: {{reads: exact}}}}\n"),
        format!("{base}exec: {{env: {{set: {{A: b}}}}}}\n"),
        format!("{base}exec: {{limits: {{processes: 7}}}}\n"),
    ] {
        let digest = digest(&text);
        assert!(!seen.contains(&digest), "{text}");
        seen.push(digest);
    }
    assert_eq!(digest(&format!("# a comment\n{base}")), seen[0]);
    assert_eq!(digest(&format!("vars: {{unused: x}}\n{base}")), seen[0]);
}

/// Changes one place of a text.
fn damage(text: &str, at: usize, with: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let at = at % lines.len();
    let mut out: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
    let cut = out[at].len() / 2;
    if out[at].is_char_boundary(cut) {
        out[at].insert_str(cut, with);
    }
    out.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_text_loads_or_says_why(text in "[\\PC\\n]{0,60}") {
        if let Err(errors) = Policy::parse("p", &text) {
            prop_assert!(!errors.errors().is_empty());
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn any_damage_to_a_shipped_policy_loads_or_says_where(
        name in 0..gait_agent::policy::SHIPPED.len(),
        at in any::<prop::sample::Index>(),
        with in "[\\PC\\n]{1,4}|: |- |\\[|\\}|'|\\$\\{",
    ) {
        let text = damage(gait_agent::policy::SHIPPED[name].1, at.index(1 << 20), &with);
        if let Err(errors) = Policy::parse("p", &text) {
            for error in errors.errors() {
                prop_assert!(error.line > 0 && error.column > 0, "{}", error);
            }
        }
    }
}

/// A policy may be one long line with a mistake in every word: what is said about it stays readable, and small.
#[test]
fn a_thousand_mistakes_in_one_line() {
    let keys: String = (0..20_000).map(|at| format!("k{at}: 1, ")).collect();
    let errors =
        Policy::parse("p.yaml", &format!("{{{keys}default_verdict: block}}\n")).expect_err("mistakes");
    assert_eq!(errors.errors().len(), 101);
    let text = errors.to_string();
    assert!(text.len() < 100 * 700, "{}", text.len());
    assert!(text.starts_with("p.yaml:1:2: unknown key `k0`"), "{}", &text[..100]);
    assert!(text.ends_with("there are more mistakes than these"));
    let last = errors.errors()[99].to_string();
    let lines: Vec<_> = last.lines().collect();
    let caret = lines[3].chars().position(|c| c == '^').expect("a caret");
    let shown: String = lines[2].chars().skip(caret).take(3).collect();
    assert_eq!(shown, "k99", "{last}");
    assert!(lines[2].contains(" | …") && lines[2].ends_with('…'));
}
