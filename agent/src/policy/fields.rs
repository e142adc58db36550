//! Reading the tree: mappings with known keys, and values of the wanted kind. Every mistake is reported and reading
//! goes on, so that all mistakes of a file are known at once.

use super::source::Reporter;
use super::syntax::{Key, Node, Place, Value};
use crate::gate::Verdict;

/// The entries of a mapping, checked against the keys that may stand there.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    entries: Vec<(&'n Key, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// Opens a mapping; nothing at all is an empty one. Reports unknown keys and keys given twice.
    pub(super) fn open(node: &'n Node, known: &[&str], reporter: &mut Reporter<'_>) -> Option<Self> {
        let map = match &node.value {
            Value::Null => return Some(Self { entries: Vec::new() }),
            Value::Map(map) => map,
            other => {
                reporter.report(node.at, format!("expected a mapping, found {}", other.kind()));
                return None;
            }
        };
        let mut entries: Vec<(&Key, &Node)> = Vec::with_capacity(map.len());
        for (key, value) in map {
            if !known.contains(&key.text.as_str()) {
                reporter.report(key.at, unknown("key", &key.text, known));
            } else if let Some((first, _)) = entries.iter().find(|(other, _)| other.text == key.text) {
                let line = first.at.line;
                reporter
                    .report(key.at, format!("the key `{}` is given twice, first in line {line}", key.text));
            } else {
                entries.push((key, value));
            }
        }
        Some(Self { entries })
    }

    /// Returns the value of a key; nothing written is nothing given.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        let (_, node) = self.entries.iter().find(|(entry, _)| entry.text == key)?;
        (node.value != Value::Null).then_some(*node)
    }

    /// Returns whether one of the keys has a value.
    pub(super) fn any(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.get(key).is_some())
    }

    pub(super) fn text(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<String> {
        text(self.get(key)?, reporter)
    }

    pub(super) fn flag(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<bool> {
        let node = self.get(key)?;
        match &node.value {
            Value::Bool(flag) => Some(*flag),
            other => {
                reporter.report(node.at, format!("expected true or false, found {}", other.kind()));
                None
            }
        }
    }

    /// Reads a whole number of at least `least`.
    pub(super) fn number(&self, key: &str, least: i64, reporter: &mut Reporter<'_>) -> Option<i64> {
        let node = self.get(key)?;
        match &node.value {
            Value::Int(number) if *number >= least => Some(*number),
            Value::Int(_) => {
                reporter.report(node.at, format!("expected a whole number of at least {least}"));
                None
            }
            other => {
                reporter.report(node.at, format!("expected a whole number, found {}", other.kind()));
                None
            }
        }
    }

    /// Reads a list of texts, with their places.
    pub(super) fn texts(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<Vec<(String, Place)>> {
        let items = list(self.get(key)?, reporter)?;
        Some(items.iter().filter_map(|item| text(item, reporter).map(|text| (text, item.at))).collect())
    }

    /// Reads a list of texts as the base grammar keeps them: trimmed, sorted, unique.
    pub(super) fn set(&self, key: &str, case: Case, reporter: &mut Reporter<'_>) -> Vec<String> {
        let texts = self.texts(key, reporter).unwrap_or_default();
        let fold = |text: String| match case {
            Case::Keep => text,
            Case::Lower => text.to_lowercase(),
        };
        sorted(texts.into_iter().map(|(text, _)| fold(text)).filter(|text| !text.is_empty()).collect())
    }

    /// Reads one of several words, in whatever case.
    pub(super) fn word<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
        reporter: &mut Reporter<'_>,
    ) -> Option<T> {
        let node = self.get(key)?;
        let text = text(node, reporter)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            reporter.report(node.at, unknown(&format!("value for `{key}`:"), &text, &known));
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn verdict(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<Verdict> {
        self.word(key, &Verdict::ALL.map(|verdict| (verdict.as_str(), verdict)), reporter)
    }

    /// Reads what a constraint does: block or ask.
    pub(super) fn restriction(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<Verdict> {
        let words = [Verdict::Block, Verdict::RequireApproval].map(|verdict| (verdict.as_str(), verdict));
        self.word(key, &words, reporter)
    }
}

/// Whether the case of letters counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// It does.
    Keep,
    /// It does not; lower case is kept.
    Lower,
}

pub(super) fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list.dedup();
    list
}

pub(super) fn text(node: &Node, reporter: &mut Reporter<'_>) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.trim().to_owned()),
        Value::Null => {
            reporter.report(node.at, "expected text, found nothing");
            None
        }
        other => {
            let quotes =
                if matches!(other, Value::List(_) | Value::Map(_)) { "" } else { "; put it in quotes" };
            reporter.report(node.at, format!("expected text, found {}{quotes}", other.kind()));
            None
        }
    }
}

pub(super) fn list<'n>(node: &'n Node, reporter: &mut Reporter<'_>) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(list) => Some(list),
        other => {
            reporter.report(node.at, format!("expected a list, found {}", other.kind()));
            None
        }
    }
}

/// Says what is not known, what was probably meant, and what there is.
pub(super) fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let folded = given.to_lowercase();
    let near = known.iter().map(|word| (distance(&folded, word), word)).min();
    match near {
        Some((distance, word)) if distance <= 2 && distance < word.len() => {
            format!("unknown {what} `{given}`, did you mean `{word}`?")
        }
        _ => format!("unknown {what} `{given}`, expected one of {}", known.join(", ")),
    }
}

/// Counts the letters to insert, remove or replace between two words.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, c) in one.chars().take(64).enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        for (slot, &d) in row.iter_mut().skip(1).zip(&other) {
            let above = *slot;
            left = (diagonal + usize::from(c != d)).min(above + 1).min(left + 1);
            diagonal = above;
            *slot = left;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_proposed() {
        assert_eq!(distance("efect", "effect"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert!(unknown("key", "efect", &["name", "effect"]).contains("did you mean `effect`"));
        assert!(unknown("key", "zzz", &["name", "effect"]).contains("expected one of name, effect"));
    }
}
