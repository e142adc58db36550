//! All path patterns of a policy in one index, and the names of rules in sets: what makes a decision cheap.
//!
//! A pattern is filed under one part that every match of it has: a whole path, a directory, a component, an
//! extension. One walk over a path then finds the few patterns that are worth a closer look, so the cost follows the
//! path's depth and not the number of rules.

use std::collections::{HashMap, HashSet};

use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::glob::Glob;
use super::load::MAX_RULES;
use crate::endpoint::Operation;

/// A list of path patterns: one of the two that a rule may have, or that of what is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Set(u16);

const _: () = assert!(MAX_RULES < 1 << 15, "a rule's number and which of its lists is meant fit in 16 bits");

impl Set {
    /// The patterns of what is protected.
    pub(super) const PROTECT: Self = Self(u16::MAX);

    /// The paths of a rule.
    pub(super) const fn paths(rule: u16) -> Self {
        Self(rule << 1)
    }

    /// The paths that a rule leaves out.
    pub(super) const fn not_paths(rule: u16) -> Self {
        Self(rule << 1 | 1)
    }

    /// Returns the rule whose paths these are.
    const fn rule(self) -> Option<u16> {
        if self.0 & 1 == 0 { Some(self.0 >> 1) } else { None }
    }
}

/// How many sets a path is in, hardly ever more: those are kept without an allocation.
const USUAL: usize = 24;

/// Which sets of patterns a path is in.
#[derive(Debug, Clone, Default)]
pub(super) struct Sets(SmallVec<[u16; USUAL]>);

impl Sets {
    pub(super) fn has(&self, set: Set) -> bool {
        self.0.contains(&set.0)
    }

    fn insert(&mut self, set: Set) {
        self.0.push(set.0);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the rules whose paths the path is in, in their order.
    pub(super) fn rules(&self) -> SmallVec<[u16; USUAL]> {
        let mut rules: SmallVec<[u16; USUAL]> = self.0.iter().filter_map(|&set| Set(set).rule()).collect();
        rules.sort_unstable();
        rules
    }
}

/// Operations as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OperationMask(pub(super) u64);

impl OperationMask {
    pub(super) const fn of(operation: Operation) -> Self {
        Self(1 << (operation as u8))
    }

    pub(super) const fn has(self, operation: Operation) -> bool {
        self.0 & Self::of(operation).0 != 0
    }
}

#[derive(Debug, Clone)]
struct Entry {
    set: Set,
    operations: OperationMask,
    check: Check,
}

/// What is left to check once the part under which a pattern is filed was found.
#[derive(Debug, Clone)]
enum Check {
    /// Nothing: the directory itself and everything below match.
    Tree,
    /// That the path ends here.
    Whole,
    /// Everything.
    Glob(Glob),
}

/// The path holds `.`, `..` or an empty component, which a resolved path never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unclean;

type Table = HashMap<Box<[u8]>, Vec<Entry>, FxBuildHasher>;

/// The index.
#[derive(Debug, Clone, Default)]
pub(super) struct PathIndex {
    directories: Table,
    components: Table,
    extensions: Table,
    rest: Vec<Entry>,
    /// Operations that some pattern is for.
    operations: u64,
}

impl PathIndex {
    /// Files a pattern.
    pub(super) fn insert(&mut self, glob: &Glob, set: Set, operations: OperationMask) {
        self.operations |= operations.0;
        let entry = |check| Entry { set, operations, check };
        let whole = || entry(Check::Glob(glob.clone()));
        let mut file = |table: Option<&mut Table>, key: &[u8], entry: Entry| match table {
            Some(table) => match table.get_mut(key) {
                Some(entries) => entries.push(entry),
                None => {
                    table.insert(key.into(), vec![entry]);
                }
            },
            None => self.rest.push(entry),
        };
        if let Some(directory) = glob.as_tree() {
            file(Some(&mut self.directories), directory, entry(Check::Tree));
        } else if let Some(path) = glob.as_literal() {
            let key = if path == b"/" { b"" } else { path };
            file(Some(&mut self.directories), key, entry(Check::Whole));
        } else if let Some(component) = glob.component() {
            file(Some(&mut self.components), component, whole());
        // Before the directory: `DIR/**/*.pem` is worth a look at few of the files below DIR.
        } else if let Some(extension) = glob.extension() {
            file(Some(&mut self.extensions), extension, whole());
        } else if let Some(end) = glob.prefix().iter().rposition(|&byte| byte == b'/').filter(|&end| end > 0)
        {
            let key = glob.prefix().get(..end).unwrap_or_default();
            file(Some(&mut self.directories), key, whole());
        } else {
            file(None, b"", whole());
        }
    }

    /// Returns whether some pattern is for the operation.
    pub(super) const fn concerns(&self, operation: Operation) -> bool {
        self.operations & OperationMask::of(operation).0 != 0
    }

    /// Finds the sets that hold the path.
    ///
    /// # Errors
    ///
    /// Fails if the path is not clean.
    pub(super) fn lookup(&self, path: &[u8], operation: Operation, sets: &mut Sets) -> Result<(), Unclean> {
        let body = match path.strip_prefix(b"/") {
            Some(body) => body,
            // Not a path of a file system: only patterns that begin with a wildcard can mean it.
            None => {
                self.everything(path, operation, sets);
                return Ok(());
            }
        };
        let mut file = |table: &Table, key: &[u8], ends: bool, path: &[u8]| {
            if let Some(entries) = table.get(key) {
                for entry in entries {
                    entry.check(path, operation, ends, sets);
                }
            }
        };
        file(&self.directories, b"", body.is_empty(), path);
        let mut start = 1;
        if !body.is_empty() {
            loop {
                let rest = path.get(start..).unwrap_or_default();
                let length = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
                let component = rest.get(..length).unwrap_or_default();
                if matches!(component, b"" | b"." | b"..") {
                    return Err(Unclean);
                }
                let end = start + length;
                let ends = end == path.len();
                if !self.components.is_empty() {
                    file(&self.components, component, ends, path);
                }
                file(&self.directories, path.get(..end).unwrap_or_default(), ends, path);
                if ends {
                    if let Some(dot) = component.iter().rposition(|&byte| byte == b'.')
                        && !self.extensions.is_empty()
                    {
                        file(&self.extensions, component.get(dot..).unwrap_or_default(), ends, path);
                    }
                    break;
                }
                start = end + 1;
            }
        }
        for entry in &self.rest {
            entry.check(path, operation, true, sets);
        }
        Ok(())
    }

    /// The slow way: every pattern is tried.
    fn everything(&self, path: &[u8], operation: Operation, sets: &mut Sets) {
        let tables = [&self.components, &self.directories, &self.extensions];
        let entries = tables.into_iter().flat_map(|table| table.values().flatten()).chain(&self.rest);
        for entry in entries {
            if matches!(entry.check, Check::Glob(_)) {
                entry.check(path, operation, true, sets);
            }
        }
    }
}

impl Entry {
    fn check(&self, path: &[u8], operation: Operation, ends: bool, sets: &mut Sets) {
        if !self.operations.has(operation) || sets.has(self.set) {
            return;
        }
        let hit = match &self.check {
            Check::Tree => true,
            Check::Whole => ends,
            Check::Glob(glob) => glob.is_match(path),
        };
        if hit {
            sets.insert(self.set);
        }
    }
}

/// Names of hosts: exact ones, all below one, and globs.
#[derive(Debug, Clone, Default)]
pub(super) struct NameSet {
    exact: HashSet<Box<[u8]>, FxBuildHasher>,
    parents: HashSet<Box<[u8]>, FxBuildHasher>,
    globs: Vec<Glob>,
}

impl NameSet {
    pub(super) fn new(globs: &[Glob]) -> Self {
        let mut set = Self::default();
        for glob in globs {
            if let Some(name) = glob.as_literal() {
                set.exact.insert(name.into());
            } else if let Some(parent) = glob.as_subdomains() {
                set.parents.insert(parent.into());
            } else {
                set.globs.push(glob.clone());
            }
        }
        set
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        if self.exact.contains(name) {
            return true;
        }
        if !self.parents.is_empty() {
            // A name that begins with a dot has no label before it.
            let dots = name.iter().enumerate().skip(1).filter(|&(_, &byte)| byte == b'.');
            let leading = name.first() == Some(&b'.');
            for (dot, _) in dots {
                if !leading && name.get(dot + 1..).is_some_and(|parent| self.parents.contains(parent)) {
                    return true;
                }
            }
        }
        self.globs.iter().any(|glob| glob.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::glob::Separator;
    use crate::policy::pattern::domain_globs;

    fn pattern() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            5 => "[ab]{1,2}",
            1 => "[ab]\\.[ab]",
            2 => Just("*".to_owned()),
            1 => Just("*.b".to_owned()),
            1 => Just("a?".to_owned()),
            1 => Just("{a,b.b}".to_owned()),
            2 => Just("**".to_owned()),
        ];
        (any::<bool>(), prop::collection::vec(piece, 1..5))
            .prop_map(|(deep, pieces)| format!("{}{}", if deep { "**/" } else { "/" }, pieces.join("/")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_index_finds_what_the_patterns_find(
            patterns in prop::collection::vec(pattern(), 1..8),
            path in prop_oneof!["(/[ab]{1,2}(\\.[ab])?){1,5}", Just("/".to_owned()), "[ab]:a"],
        ) {
            let mut index = PathIndex::default();
            let all: Vec<Vec<Glob>> =
                patterns.iter().map(|text| Glob::parse(text, Separator::Slash).unwrap()).collect();
            for (set, globs) in all.iter().enumerate() {
                for glob in globs {
                    index.insert(glob, Set(u16::try_from(set).unwrap()), OperationMask::of(Operation::Read));
                }
            }
            let mut sets = Sets::default();
            index.lookup(path.as_bytes(), Operation::Read, &mut sets).unwrap();
            let mut others = Sets::default();
            index.lookup(path.as_bytes(), Operation::Write, &mut others).unwrap();
            for (set, globs) in all.iter().enumerate() {
                let want = globs.iter().any(|glob| glob.is_match(path.as_bytes()));
                let set = u16::try_from(set).unwrap();
                prop_assert_eq!(sets.has(Set(set)), want, "{} on {}", patterns[usize::from(set)], path);
                prop_assert!(!others.has(Set(set)));
            }
        }

        #[test]
        fn the_name_set_finds_what_the_patterns_find(
            patterns in prop::collection::vec("(\\*\\.)?[ab*]{1,2}(\\.[ab]){0,2}", 1..6),
            name in "\\.?[ab]{1,2}(\\.[ab]){0,3}\\.?",
        ) {
            let globs = domain_globs(&patterns).unwrap();
            let want = globs.iter().any(|glob| glob.is_match(name.as_bytes()));
            prop_assert_eq!(NameSet::new(&globs).has(name.as_bytes()), want, "{:?} on {}", patterns, name);
        }
    }

    #[test]
    fn unclean_paths_are_told() {
        for path in ["/a/../b", "/a//b", "/a/.", "/a/"] {
            let mut sets = Sets::default();
            let found = PathIndex::default().lookup(path.as_bytes(), Operation::Read, &mut sets);
            assert_eq!(found, Err(Unclean), "{path}");
        }
    }
}
