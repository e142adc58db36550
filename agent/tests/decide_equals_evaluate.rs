//! The compiled matcher against the reference evaluation, on random policies and random actions.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::net::IpAddr;

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::{Operation, TargetKind};
use gait_agent::gate::{Decision, Facts, evaluate_bound};
use gait_agent::intent::{Capture, Intent, SessionFacts};
use gait_agent::policy::{BoundPolicy, CompiledPolicy, Policy, SHIPPED, Vars};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn facts() -> SessionFacts {
    SessionFacts { identity: "uid:1000".into(), workspace: "/w".into(), run_id: "run_x".into() }
}

fn check(policy: &Policy, actions: &[(Operation, Parts)]) {
    let vars = Vars { home: "/h".into(), ..Vars::default() };
    let compiled = CompiledPolicy::compile(policy, &facts(), &vars).unwrap();
    let bound = BoundPolicy::new(policy, &facts(), &vars).unwrap();
    for (operation, parts) in actions {
        let action = parts.action(*operation);
        let intent = Intent::from_action(&facts(), &action, Capture::Reference);
        let want = evaluate_bound(&bound, &intent, Facts::of(&action));
        let decision = compiled.decide(&action);
        assert_eq!(decision.verdict(), want.verdict, "{action:?}\n{:#?}", policy.rules());
        assert_eq!(compiled.explain(decision), want, "{action:?}\n{:#?}", policy.rules());
        assert_eq!(Decision::from_u64(decision.to_u64()), Ok(decision));
        if decision.verdict() != gait_agent::gate::Verdict::Allow {
            assert!(compiled.can_block(*operation), "{action:?}");
        } else if let Object::Path(path) = action.object {
            use gait_agent::endpoint::EndpointClass::{FsDelete, FsRead, FsWrite, ProcExec};
            let floor = compiled.floor();
            let trees = match operation.class() {
                FsRead => &floor.read,
                FsWrite => &floor.write,
                FsDelete => &floor.delete,
                ProcExec => &floor.exec,
                _ => continue,
            };
            // What is in no file system, or was never resolved, is no matter for Landlock.
            if !path.starts_with(b"/") || path.windows(2).any(|pair| pair == b"..") {
                continue;
            }
            let below = |rest: &[u8]| rest.is_empty() || rest.starts_with(b"/");
            let inside = |tree: &String| tree == "/" || path.strip_prefix(tree.as_bytes()).is_some_and(below);
            assert!(trees.iter().any(inside), "{action:?} is allowed outside of {trees:?}");
        }
    }
}

/// Everything an action of whatever operation could need.
#[derive(Debug, Clone)]
struct Parts {
    path: Vec<u8>,
    name: Option<String>,
    address: Option<IpAddr>,
    port: u16,
    image: Vec<u8>,
    argv: Option<Vec<u8>>,
    other: String,
}

impl Parts {
    fn action(&self, operation: Operation) -> Action<'_> {
        let object = match operation.target_kind() {
            TargetKind::Path => Object::Path(&self.path),
            TargetKind::Host => {
                Object::Host(Host { name: self.name.as_deref(), address: self.address, port: self.port })
            }
            TargetKind::Other => Object::Other(&self.other),
        };
        let argv = if operation == Operation::Exec { self.argv.as_deref() } else { None };
        Action { operation, object, image: &self.image, argv }
    }
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "(/(a|b|w|h|c\\.d|e f|\\.x)){1,4}".prop_map(String::into_bytes),
        1 => Just(b"/w/\xff".to_vec()),
        1 => Just(b"/w/a ".to_vec()),
        1 => Just(b"/".to_vec()),
        1 => Just(b"/w/a\\b".to_vec()),
        1 => Just(b"pipe:[7]".to_vec()),
        1 => Just(b"/w/../h/a".to_vec()),
        1 => Just("/w/é".as_bytes().to_vec()),
    ]
}

fn address() -> impl Strategy<Value = Option<IpAddr>> {
    let texts =
        ["1.2.3.4", "10.0.0.1", "127.0.0.1", "::1", "2001:4860::1", "::ffff:10.0.0.1", "169.254.169.254"];
    prop_oneof![Just(None), select(texts.to_vec()).prop_map(|text| Some(text.parse().unwrap()))]
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        path(),
        prop::option::of(select(vec!["a.b", "x.a.b", "c.d", "A.b", "a.b."]).prop_map(str::to_owned)),
        address(),
        select(vec![0, 22, 80, 443, 8080]),
        path(),
        prop::option::of(
            select(vec!["a\0b\0", "/x/a\0", "a\0b\0c\0", ""]).prop_map(|text| text.as_bytes().to_vec()),
        ),
        select(vec!["unix:@a", "AF_PACKET"]).prop_map(str::to_owned),
    )
        .prop_map(|(path, name, address, port, image, argv, other)| Parts {
            path,
            name,
            address,
            port,
            image,
            argv,
            other,
        })
}

fn list(of: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<&'static str>>> {
    prop::option::weighted(0.15, subsequence(of, 1..=of.len().min(3)))
}

fn render(key: &str, list: Option<Vec<&str>>) -> String {
    list.map_or_else(String::new, |list| {
        let quoted: Vec<_> = list.iter().map(|item| format!("'{item}'")).collect();
        format!("      {key}: [{}]\n", quoted.join(", "))
    })
}

const VERDICTS: [&str; 4] = ["allow", "block", "dry_run", "require_approval"];
const PATHS: [&str; 12] = [
    "/w/**",
    "${workspace}/a",
    "**/b",
    "**/.x/**",
    "/**/c.d",
    "/*/a",
    "**/*.d",
    "${home}/**/a",
    "/w/{a,b}",
    "/w/?",
    "/**",
    "/w/\\\\xff",
];

fn rule() -> impl Strategy<Value = String> {
    let classes: &[&str] = &["fs.read", "fs.write", "fs.delete", "proc.exec", "net.http", "net.dns", "other"];
    let base = (
        list(classes),
        list(&["os.fs.read", "os.net.http", "tool.x"]),
        list(&["low", "medium", "high"]),
        list(&["path", "host", "other"]),
        list(&["/w/a", "a.b:443", "unix:@a"]),
        list(&["rename", "connect", "write", "exec"]),
        list(&["system", "external"]),
        list(&["/w", "/x"]),
    );
    let facts = (
        prop::option::weighted(0.5, subsequence(&PATHS[..], 1..4)),
        prop::option::weighted(0.2, subsequence(&PATHS[..], 1..3)),
        list(&["read", "write", "rename", "exec", "connect", "listen"]),
        list(&["/w/**", "**/b", "/a"]),
        prop::option::weighted(0.1, select(vec!["[a, b]", "[a$]", "['{a,x}', '*']"])),
        list(&["a.b", "*.b", "*", "x.*.b"]),
        list(&["10.0.0.0/8", "1.2.3.4", "::1", "0.0.0.0/0", "::/0"]),
        prop::option::weighted(0.15, select(vec!["[80]", "['0-443']", "[22, 8080]"])),
    );
    let extra = select(vec![
        "",
        "",
        "",
        "",
        "    endpoint: {path_allowlist: ['/w/**'], action: require_approval}\n",
        "    endpoint: {path_denylist: ['/w/a/*'], destructive_action: block}\n",
        "    endpoint: {domain_allowlist: ['*.b'], domain_denylist: ['x.a.b'], egress_classes: [net.dns]}\n",
        "    dataflow: {tainted_sources: [system], destination_kinds: [host], action: block}\n",
        "    dataflow: {tainted_sources: [system]}\n",
        "    reason_codes: [z, a]\n    violations: [v]\n",
    ]);
    (select(&VERDICTS[..]), 0..4_i64, base, facts, extra).prop_map(
        |(effect, priority, base, facts, extra)| {
            let mut text = format!("    effect: {effect}\n    priority: {priority}\n{extra}    match:\n");
            text.push_str(&render("endpoint_classes", base.0));
            text.push_str(&render("tool_names", base.1));
            text.push_str(&render("risk_classes", base.2));
            text.push_str(&render("target_kinds", base.3));
            text.push_str(&render("target_values", base.4));
            text.push_str(&render("destination_operations", base.5));
            text.push_str(&render("provenance_sources", base.6));
            text.push_str(&render("workspace_prefixes", base.7));
            text.push_str(&render("paths", facts.0));
            text.push_str(&render("not_paths", facts.1));
            text.push_str(&render("operations", facts.2));
            text.push_str(&render("executables", facts.3));
            text.push_str(&facts.4.map_or_else(String::new, |argv| format!("      argv: {argv}\n")));
            text.push_str(&render("domains", facts.5));
            text.push_str(&render("addresses", facts.6));
            text.push_str(&facts.7.map_or_else(String::new, |ports| format!("      ports: {ports}\n")));
            text
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let closed = select(vec!["", "fail_closed: {enabled: true, required_fields: [endpoint_class]}\n"]);
    let protect = select(vec!["[]", "['/w/b/**', '**/.x']"]);
    (select(&VERDICTS[..]), closed, protect, prop::collection::vec(rule(), 0..7)).prop_map(
        |(default, closed, protect, rules)| {
            let mut text =
                format!("default_verdict: {default}\n{closed}exec: {{protect: {protect}}}\nrules:\n");
            for (at, rule) in rules.iter().enumerate() {
                text.push_str(&format!("  - name: 'r {at}'\n{rule}"));
            }
            Policy::parse("random", &text).unwrap_or_else(|errors| panic!("{errors}"))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn on_random_policies(policy in policy(), parts in prop::collection::vec(parts(), 4)) {
        let actions: Vec<_> = Operation::ALL
            .iter()
            .flat_map(|&operation| parts.iter().map(move |parts| (operation, parts.clone())))
            .collect();
        check(&policy, &actions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn on_shipped_policies(
        index in 0..SHIPPED.len(),
        parts in prop::collection::vec(parts(), 2),
        paths in prop::collection::vec(
            "(/(w|h|etc|usr|home|root|bin|x|\\.ssh|\\.git|hooks|config|\\.env|a\\.pem|\\.aws|sudo|\\.cache|tmp)){1,5}",
            4,
        ),
    ) {
        let (name, _) = SHIPPED[index];
        // The highest tier asks for two approvals, which `gait exec` refuses.
        prop_assume!(name != "baseline-highrisk");
        let policy = Policy::load(name).unwrap();
        let mut all = parts.clone();
        all.extend(paths.into_iter().map(|path| Parts { path: path.into_bytes(), ..parts[0].clone() }));
        let actions: Vec<_> = Operation::ALL
            .iter()
            .flat_map(|&operation| all.iter().map(move |parts| (operation, parts.clone())))
            .collect();
        check(&policy, &actions);
    }
}
