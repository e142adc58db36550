//! The layout of a policy file: keys in one order, clean line ends, and every comment where it was.
//!
//! The text is not written anew from the parsed policy, which would lose comments and quoting. Lines are moved and
//! trimmed instead, step by step, and a step after which the text would mean anything else is left out.

use super::syntax::{Key, Node, SyntaxError, Value, parse};

/// The keys of a policy, in the order in which a reader needs them.
const TOP: &[&str] =
    &["schema_id", "schema_version", "extends", "default_verdict", "vars", "fail_closed", "exec", "rules"];

/// The keys of a rule.
const RULE: &[&str] = &[
    "name",
    "priority",
    "effect",
    "min_approvals",
    "require_distinct_approvers",
    "require_broker_credential",
    "broker_reference",
    "broker_scopes",
    "rate_limit",
    "approval",
    "match",
    "endpoint",
    "dataflow",
    "reason_codes",
    "violations",
    "justification",
    "examples",
];

/// The text cannot be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct FormatError {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong with it.
    pub message: String,
}

impl From<SyntaxError> for FormatError {
    fn from(error: SyntaxError) -> Self {
        Self { line: error.at.line, message: error.message }
    }
}

/// A policy file as it should look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formatted {
    /// The text.
    pub text: String,
    /// What was left as it is, because the text would have meant something else.
    pub left: Vec<&'static str>,
}

type Step = (&'static str, fn(&str, &Node) -> String);

const STEPS: [Step; 4] = [
    ("line ends", line_ends),
    ("blank lines", blank_lines),
    ("the order of keys", order_top),
    ("the order of keys in rules", order_rules),
];

/// Lays a policy file out. Laying it out again changes nothing.
///
/// # Errors
///
/// Fails if the text is not YAML.
pub fn format(text: &str) -> Result<Formatted, FormatError> {
    let mut root = parse(text)?;
    let mut text = text.to_owned();
    let mut left = Vec::new();
    for (name, step) in STEPS {
        let stepped = step(&text, &root);
        if stepped == text {
            continue;
        }
        match parse(&stepped) {
            Ok(meant) if same_meaning(&root, &meant) => (text, root) = (stepped, meant),
            _ => left.push(name),
        }
    }
    Ok(Formatted { text, left })
}

/// Compares two trees, wherever things stand and in whatever order keys come.
fn same_meaning(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_meaning(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            let sorted = |map: &[(Key, Node)]| {
                let mut order: Vec<usize> = (0..map.len()).collect();
                order.sort_by_key(|&at| &map[at].0.text);
                order
            };
            let same =
                |(a, b): (&(Key, Node), &(Key, Node))| a.0.text == b.0.text && same_meaning(&a.1, &b.1);
            let pairs = sorted(a).into_iter().zip(sorted(b));
            a.len() == b.len() && pairs.into_iter().all(|(at, other)| same((&a[at], &b[other])))
        }
        (a, b) => a == b,
    }
}

fn line_ends(text: &str, _: &Node) -> String {
    join(text.lines().map(str::trim_end))
}

/// One blank line where there were several, and none at either end.
fn blank_lines(text: &str, _: &Node) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for line in text.lines() {
        if !line.is_empty() || kept.last().is_some_and(|last| !last.is_empty()) {
            kept.push(line);
        }
    }
    while kept.last().is_some_and(|last| last.is_empty()) {
        kept.pop();
    }
    join(kept.into_iter())
}

fn join<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn order_top(text: &str, root: &Node) -> String {
    let Value::Map(entries) = &root.value else { return text.to_owned() };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let end = lines.len();
    reorder(&mut lines, entries, TOP, end);
    join(lines.iter().map(String::as_str))
}

fn order_rules(text: &str, root: &Node) -> String {
    let Value::Map(entries) = &root.value else { return text.to_owned() };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let next_key = |line: u32| entries.iter().map(|(key, _)| key.at.line).filter(|other| *other > line).min();
    let Some((key, Node { value: Value::List(rules), .. })) =
        entries.iter().find(|(key, _)| key.text == "rules")
    else {
        return text.to_owned();
    };
    for (at, rule) in rules.iter().enumerate() {
        let Value::Map(keys) = &rule.value else { continue };
        let next_rule = rules.get(at + 1).map(|next| next.at.line);
        let end = next_rule.or_else(|| next_key(key.at.line)).map_or(lines.len(), index);
        reorder(&mut lines, keys, RULE, end);
    }
    join(lines.iter().map(String::as_str))
}

/// The index of a line that is counted from 1.
fn index(line: u32) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Puts the keys of one mapping in order, each with the lines below it and the comment right above it. `end` is where
/// something else begins. A mapping that is not written as one key per line stays as it is.
fn reorder(lines: &mut [String], entries: &[(Key, Node)], order: &[&str], end: usize) {
    let places: Vec<(usize, usize)> =
        entries.iter().map(|(key, _)| (index(key.at.line), index(key.at.column))).collect();
    let Some(&(first, column)) = places.first() else { return };
    let begins = |&(line, at): &(usize, usize)| {
        let before = lines.get(line).and_then(|text| text.get(..at));
        let blank = |text: &str| text.bytes().all(|byte| byte == b' ');
        let dash = |text: &str| line == first && blank(&text.replacen('-', " ", 1));
        at == column && before.is_some_and(|text| blank(text) || dash(text))
    };
    if !places.is_sorted_by(|a, b| a.0 < b.0) || !places.iter().all(begins) {
        return;
    }
    let mut end = end.min(lines.len());
    // What stands right above the next thing belongs to it.
    while end > first + 1 && lines.get(end - 1).is_some_and(|line| line.is_empty() || is_comment(line)) {
        end -= 1;
    }
    let starts: Vec<usize> = places
        .iter()
        .enumerate()
        .map(|(at, &(line, _))| {
            // The comment above the first key is that of the whole.
            let floor = if at == 0 { line } else { places[at - 1].0 + 1 };
            (floor..line).rev().take_while(|&above| is_comment(&lines[above])).last().unwrap_or(line)
        })
        .collect();
    let dash = lines[first].get(..column).unwrap_or_default().to_owned();
    lines[first].replace_range(..column, &" ".repeat(column));
    let mut segments: Vec<(usize, Vec<String>)> = starts
        .iter()
        .enumerate()
        .map(|(at, &start)| {
            let stop = starts.get(at + 1).copied().unwrap_or(end);
            let rank = order.iter().position(|known| *known == entries[at].0.text).unwrap_or(order.len());
            (rank, lines[start..stop].to_vec())
        })
        .collect();
    if !segments.is_sorted_by_key(|segment| segment.0) {
        separate(&mut segments);
        segments.sort_by_key(|segment| segment.0);
        let total = end - starts[0];
        let mut moved: Vec<String> = segments.into_iter().flat_map(|(_, segment)| segment).collect();
        while moved.len() > total && moved.last().is_some_and(String::is_empty) {
            moved.pop();
        }
        if moved.len() == total {
            lines[starts[0]..end].clone_from_slice(&moved);
        }
    }
    // The dash goes to whatever comes first now, past its comment.
    if let Some(line) = lines[starts[0]..].iter_mut().find(|line| !is_comment(line)) {
        line.replace_range(..column, &dash);
    }
}

/// Where the part that will be the last ends with a blank line, the one that is the last now takes it over.
fn separate(segments: &mut [(usize, Vec<String>)]) {
    let will_be = segments.iter().max_by_key(|segment| segment.0);
    let spaced = will_be.is_some_and(|(_, segment)| segment.last().is_some_and(String::is_empty));
    if let Some((_, last)) = segments.last_mut().filter(|_| spaced) {
        last.push(String::new());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::SHIPPED;

    #[test]
    fn shipped_policies_are_laid_out_already() {
        for (name, text) in SHIPPED {
            let formatted = format(text).unwrap();
            assert!(formatted.text == text, "{name}");
            assert!(formatted.left.is_empty(), "{name}");
        }
    }

    #[test]
    fn keys_are_put_in_order_and_comments_go_with_them() {
        let text = "\
# The policy of all policies.

# Rules first.
rules:
  # About a.
  - effect: block   \r
    # It is called a.
    name: a


    match:
      paths: [/etc/**] # why
    priority: 3
  # About b.
  - name: b
    effect: allow

# Otherwise.
default_verdict: block
extends: [secrets]

";
        let wanted = "\
# The policy of all policies.

# Rules first.
extends: [secrets]

# Otherwise.
default_verdict: block
rules:
  # About a.
    # It is called a.
  - name: a

    priority: 3
    effect: block
    match:
      paths: [/etc/**] # why
  # About b.
  - name: b
    effect: allow
";
        let formatted = format(text).unwrap();
        assert_eq!(formatted.left, [""; 0]);
        assert_eq!(formatted.text, wanted);
    }

    #[test]
    fn what_would_mean_something_else_is_left() {
        let text = "rules:\n  - name: a\n    effect: block\n    justification: |+\n      text  \n\n\n\ndefault_verdict: block\n";
        let formatted = format(text).unwrap();
        assert!(
            formatted.left.contains(&"line ends") && formatted.left.contains(&"blank lines"),
            "{formatted:?}"
        );
        let aliased = "rules:\n  - {name: a, effect: block, violations: &v [x]}\nextends: *v\n";
        assert_eq!(
            format(aliased).unwrap(),
            Formatted { text: aliased.into(), left: vec!["the order of keys"] }
        );
        assert_eq!(format("rules: [\n").unwrap_err().line, 1);
    }

    fn line() -> impl Strategy<Value = String> {
        let key = prop::sample::select([TOP, RULE].concat());
        prop_oneof![
            (
                0_usize..3,
                any::<bool>(),
                key,
                prop::sample::select(vec!["", " x", " [a, b]", " |", " # c", " {b: 1}"])
            )
                .prop_map(|(depth, dash, key, rest)| {
                    format!("{}{}{key}:{rest}", "  ".repeat(depth), if dash { "- " } else { "" })
                }),
            Just("# comment".to_owned()),
            Just("    # comment".to_owned()),
            Just(String::new()),
            Just("      text ".to_owned()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn any_text_keeps_its_meaning_and_once_is_enough(lines in prop::collection::vec(line(), 0..14)) {
            let text = lines.join("\n");
            if let Ok(formatted) = super::format(&text) {
                let (before, after) = (parse(&text).unwrap(), parse(&formatted.text).unwrap());
                prop_assert!(same_meaning(&before, &after), "{}", formatted.text);
                let comments = |text: &str| text.matches("# c").count();
                prop_assert_eq!(comments(&text), comments(&formatted.text));
                let again = super::format(&formatted.text).unwrap();
                prop_assert_eq!(&again.text, &formatted.text);
            }
        }
    }
}
