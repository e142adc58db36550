//! Policies in the kernel's tables against the gate: what a table allows or blocks, the gate allows or blocks.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use gait_agent::action::{Action, Object};
use gait_agent::endpoint::{Operation, TargetKind};
use gait_agent::gate::Verdict;
use gait_agent::intent::SessionFacts;
use gait_agent::policy::{CompiledPolicy, LowerOptions, Lowered, Policy, Vars, Why, verdict};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn operations() -> impl Iterator<Item = Operation> {
    Operation::ALL.iter().copied().filter(|operation| operation.target_kind() == TargetKind::Path)
}

fn compile(policy: &Policy) -> CompiledPolicy {
    let facts = SessionFacts { identity: "uid:1000".into(), workspace: "/w".into(), run_id: "run_x".into() };
    let vars = Vars { home: "/h".into(), ..Vars::default() };
    CompiledPolicy::compile(policy, &facts, &vars).unwrap()
}

/// The arguments that are tried for a new program.
const ARGV: [Option<&[u8]>; 4] = [None, Some(b"a\0b\0"), Some(b"/x/a\0"), Some(b"\0")];

/// Holds one verdict of the tables against the gate; returns whether it was held.
fn holds(
    policy: &CompiledPolicy,
    hidden: &[Vec<u8>],
    found: u8,
    action: (&[u8], &[u8], Operation),
) -> Result<bool, String> {
    let (path, image, operation) = action;
    if found == verdict::HOLD {
        return Ok(true);
    }
    for argv in if operation == Operation::Exec { &ARGV[..] } else { &ARGV[..1] } {
        let action = Action { operation, object: Object::Path(path), image, argv: *argv };
        let want = policy.decide_hiding(hidden, &action).verdict();
        let got = match found {
            verdict::ALLOW | verdict::SILENT => Verdict::Allow,
            _ => Verdict::Block,
        };
        if got != want {
            return Err(format!(
                "{action:?} {:?}: the table says {got}, the gate {want}",
                path.escape_ascii().to_string()
            ));
        }
    }
    Ok(false)
}

/// Checks all operations on some paths by some images. Returns how many verdicts there were, and how many were held.
fn check(
    policy: &CompiledPolicy,
    lowered: &Lowered,
    hidden: &[Vec<u8>],
    paths: &[Vec<u8>],
    images: &[Vec<u8>],
) -> Result<(usize, usize), String> {
    let (mut all, mut held) = (0, 0);
    for operation in operations() {
        for path in paths {
            for image in images {
                let found = lowered.verdict(path, image, operation);
                all += 1;
                held += usize::from(holds(policy, hidden, found, (path, image, operation))?);
            }
        }
    }
    Ok((all, held))
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => "(/(a|b|ab|aab|w|h|c\\.d|e f|\\.x|a |b\\t|-|\\\\x20|x20|é|\\[|a\\\\|\\v|0)){1,5}".prop_map(String::into_bytes),
        8 => "(/(a|b|ab|w|h)){1,4}".prop_map(String::into_bytes),
        1 => Just(b"/w/\xff".to_vec()),
        1 => Just(b"/".to_vec()),
    ]
}

fn pattern() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => select(vec!["a", "b", "ab", "w", "h", "c.d", ".x", "e f", "é"]),
        2 => Just("**"),
        2 => Just("*"),
        2 => select(vec!["a*", "*b", "*a*", "?", "??", "[a-b]", "[!a]", "[^b]?", "*.d", "{a,b}", "{a,b/a}"]),
        1 => select(vec!["a**b", "**b", "a**", "*[ ]", "a[ ]", "?*", "*0", "*20", "\\\\x20", "*x*", "a\\\\"]),
    ];
    let start = select(vec!["/", "/", "/", "**/", "${workspace}/", "{/a,/b}/", "{**/,/a/}", "{*,/a}/"]);
    (start, prop::collection::vec(piece, 1..5))
        .prop_map(|(start, pieces)| format!("{start}{}", pieces.join("/")))
}

/// Patterns over which the tables are never in doubt.
fn plain_pattern() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => select(vec!["a", "b", "ab", "w", "h", "c.d", ".x"]),
        1 => Just("*"),
        1 => select(vec!["*.d", "a*", "*.x"]),
    ];
    let start = select(vec!["/", "/", "/", "**/", "${workspace}/"]);
    (start, prop::collection::vec(piece, 1..4), any::<bool>()).prop_map(|(start, pieces, tree)| {
        format!("{start}{}{}", pieces.join("/"), if tree { "/**" } else { "" })
    })
}

fn render(key: &str, list: Option<Vec<String>>) -> String {
    list.map_or_else(String::new, |list| {
        let quoted: Vec<_> = list.iter().map(|item| format!("'{item}'")).collect();
        format!("      {key}: [{}]\n", quoted.join(", "))
    })
}

fn some(weight: f64, item: BoxedStrategy<String>, most: usize) -> impl Strategy<Value = Option<Vec<String>>> {
    prop::option::weighted(weight, prop::collection::vec(item, 1..=most))
}

fn words(of: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<String>>> {
    let list = subsequence(of, 1..=of.len().min(3));
    prop::option::weighted(0.25, list.prop_map(|list| list.into_iter().map(str::to_owned).collect()))
}

const EXTRA: [&str; 8] = [
    "",
    "",
    "",
    "",
    "    endpoint: {path_allowlist: ['/w/**'], action: require_approval}\n",
    "    endpoint: {path_denylist: ['/w/a/*'], destructive_action: block}\n",
    "    endpoint: {domain_allowlist: ['*.b'], destructive_action: block}\n",
    "    dataflow: {tainted_sources: [system], destination_kinds: [path], destination_operations: [write], action: block}\n",
];

fn rule() -> impl Strategy<Value = String> {
    let keys = (
        words(&["fs.read", "fs.write", "fs.delete", "proc.exec"]),
        words(&["/w/a", "/a", "/a/b", "x:1"]),
        some(0.8, pattern().boxed(), 4),
        some(0.25, pattern().boxed(), 2),
        words(&["read", "write", "rename", "exec", "connect", "mkdir", "link"]),
        some(0.2, pattern().boxed(), 2),
        prop::option::weighted(0.1, select(vec!["[a, b]", "[a$]", "['{a,x}', '*']"])),
    );
    let effect = select(vec!["allow", "allow", "block", "block", "dry_run", "require_approval"]);
    (effect, 0..4_i64, keys, select(&EXTRA[..])).prop_map(|(effect, priority, keys, extra)| {
        let mut text = format!("    effect: {effect}\n    priority: {priority}\n{extra}    match:\n");
        text.push_str("      target_kinds: [path]\n");
        text.push_str(&render("endpoint_classes", keys.0));
        text.push_str(&render("target_values", keys.1));
        text.push_str(&render("paths", keys.2));
        text.push_str(&render("not_paths", keys.3));
        text.push_str(&render("operations", keys.4));
        text.push_str(&render("executables", keys.5));
        text.push_str(&keys.6.map_or_else(String::new, |argv| format!("      argv: {argv}\n")));
        text
    })
}

fn policy_of(
    default: &str,
    protect: Option<Vec<String>>,
    reads: &str,
    rules: &[String],
) -> Result<Policy, TestCaseError> {
    let protect = render("protect", protect.or(Some(Vec::new())));
    let mut text = format!(
        "default_verdict: {default}\nexec:\n  evidence: {{reads: {reads}}}\n{}rules:\n",
        &protect[4..]
    );
    for (at, rule) in rules.iter().enumerate() {
        text.push_str(&format!("  - name: 'r {at}'\n{rule}"));
    }
    Policy::parse("random", &text).map_err(|errors| TestCaseError::reject(errors.to_string()))
}

fn hidden() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let paths = vec!["/h/.x", "/w/a", "/a b", "/w/\u{e9}", "/w/a "];
    prop_oneof![
        4 => Just(Vec::new()),
        2 => select(paths).prop_map(|path| vec![path.as_bytes().to_vec()]),
        1 => select(vec![&b"/"[..], b"", b"/w/", b"/w/\xff"]).prop_map(|path| vec![path.to_vec()]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn on_random_policies(
        rules in prop::collection::vec(rule(), 0..7),
        default in select(vec!["allow", "block", "require_approval"]),
        protect in some(0.3, pattern().boxed(), 2),
        reads in select(vec!["exact", "'off'"]),
        hidden in hidden(),
        paths in prop::collection::vec(path(), 12),
        images in prop::collection::vec(path(), 2),
        rests in prop::collection::vec(path(), 3),
    ) {
        let policy = compile(&policy_of(default, protect, reads, &rules)?);
        let lowered = policy.lower(&hidden, LowerOptions::default()).unwrap();
        let mut images = images;
        images.push(Vec::new());
        let checked = check(&policy, &lowered, &hidden, &paths, &images);
        prop_assert!(checked.is_ok(), "{}\n{}", checked.unwrap_err(), rules.join("\n"));
        // The gate never said anything else than the rules.
        prop_assert!(lowered.held.iter().all(|held| held.why != Why::Doubt), "{:?}", lowered.held);
        // Known by the path that a rule names, whatever path leads there.
        for literal in &lowered.literals {
            for rest in rests.iter().map(Vec::as_slice).chain([&b""[..]]) {
                let path = [&literal.path[..], rest.strip_suffix(b"/").unwrap_or(rest)].concat();
                for operation in operations() {
                    let found = lowered.verdict_below(literal.state, rest, &images[0], operation);
                    let held = holds(&policy, &hidden, found, (&path, &images[0], operation));
                    prop_assert!(held.is_ok(), "{} below {:?}\n{}", held.unwrap_err(), literal, rules.join("\n"));
                }
            }
        }
        // Nothing is told of reads only where nothing is recorded of them.
        let silent = |path: &Vec<u8>| {
            operations().filter(|&operation| lowered.verdict(path, b"", operation) == verdict::SILENT).collect::<Vec<_>>()
        };
        for operations in paths.iter().map(silent) {
            let reads_only = operations.iter().all(|op| matches!(op, Operation::Read | Operation::List));
            prop_assert!(reads_only && (reads != "exact" || operations.is_empty()), "{operations:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn plain_policies_hold_nothing(
        rules in prop::collection::vec(
            (
                select(vec!["allow", "block"]),
                0..4_i64,
                some(0.9, plain_pattern().boxed(), 4),
                some(0.2, plain_pattern().boxed(), 2),
                some(0.2, plain_pattern().boxed(), 2),
            ),
            0..7,
        ),
        default in select(vec!["allow", "block"]),
        protect in some(0.3, plain_pattern().boxed(), 2),
        paths in prop::collection::vec("(/(a|b|ab|w|h|c\\.d|\\.x|a |z|[ -.0-~]{1,3})){1,5}", 12),
    ) {
        let rules: Vec<_> = rules
            .into_iter()
            .map(|(effect, priority, paths, not_paths, images)| format!(
                "    effect: {effect}\n    priority: {priority}\n    match:\n      target_kinds: [path]\n{}{}{}",
                render("paths", paths),
                render("not_paths", not_paths),
                render("executables", images),
            ))
            .collect();
        let policy = compile(&policy_of(default, protect, "exact", &rules)?);
        let lowered = policy.lower(&[], LowerOptions::default()).unwrap();
        let clean = |path: &String| !path.split('/').any(|part| matches!(part, "." | ".."));
        let paths: Vec<_> = paths.into_iter().filter(clean).map(String::into_bytes).collect();
        let checked = check(&policy, &lowered, &[], &paths, &[b"/a/b".to_vec(), b"/z".to_vec()]);
        prop_assert!(checked.is_ok(), "{}", checked.unwrap_err());
        prop_assert_eq!(checked.unwrap().1, 0, "{}", rules.join("\n"));
        prop_assert_eq!(lowered.held, Vec::new());
    }
}
