//! The floor: directories outside of which nothing but a block can come out, for Landlock.
//!
//! It may be too wide, never too narrow but for one thing: removing or renaming a directory that a rule names as a
//! whole (`DIR/**`) needs a right on its parent, which is not given.

use std::collections::HashSet;

use super::compile::{CompiledRule, Program};
use super::glob::Glob;
use crate::endpoint::{EndpointClass, Operation};
use crate::gate::Verdict;

/// Hierarchies per class, sorted, none inside another. `/` stands for everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Floor {
    /// What may be read or listed.
    pub read: Vec<String>,
    /// What may be created or changed.
    pub write: Vec<String>,
    /// What may be removed, replaced or emptied.
    pub delete: Vec<String>,
    /// What may be run.
    pub exec: Vec<String>,
    reads_expressible: bool,
}

impl Floor {
    /// Returns whether the floor alone decides reads as the policy does: no rule stops a read inside of it.
    #[must_use]
    pub const fn reads_expressible(&self) -> bool {
        self.reads_expressible
    }
}

pub(super) fn floor(programs: &[Program], rules: &[CompiledRule], default: Verdict) -> Floor {
    let of_class = |class| {
        let mut trees = Vec::new();
        // Operations of a class share most of their rules.
        let mut seen = HashSet::new();
        for (program, _) in
            programs.iter().zip(Operation::ALL).filter(|(_, operation)| operation.class() == class)
        {
            for step in &program.steps {
                let Some(rule) = rules.get(usize::from(step.rule)) else { continue };
                if rule.effect != Verdict::Block && seen.insert(step.rule) {
                    trees.extend(trees_of(rule, class));
                }
            }
            if !program.total && default != Verdict::Block {
                trees.push("/".to_owned());
            }
        }
        reduce(trees)
    };
    let read = of_class(EndpointClass::FsRead);
    let reads_expressible = Operation::ALL
        .iter()
        .zip(programs)
        .filter(|(operation, _)| operation.class() == EndpointClass::FsRead)
        .all(|(_, program)| expressible(program, rules, default));
    Floor {
        read,
        write: of_class(EndpointClass::FsWrite),
        delete: of_class(EndpointClass::FsDelete),
        exec: of_class(EndpointClass::ProcExec),
        reads_expressible,
    }
}

/// The hierarchies that hold everything a rule's paths match.
fn trees_of(rule: &CompiledRule, class: EndpointClass) -> Vec<String> {
    match &rule.path_globs {
        None => vec!["/".to_owned()],
        Some(globs) => globs.iter().map(|glob| tree_of(glob, class)).collect(),
    }
}

fn tree_of(glob: &Glob, class: EndpointClass) -> String {
    let changes = matches!(class, EndpointClass::FsWrite | EndpointClass::FsDelete);
    let bytes = match (glob.as_tree(), glob.as_literal()) {
        (Some(tree), _) => tree,
        // Making and removing a file are rights on its directory.
        (None, Some(literal)) if !changes => literal,
        (None, _) => parent(glob.prefix()),
    };
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    // Text that stands for bytes is no name that a kernel knows.
    if let Some(at) = text.find('\\') {
        let kept = text.get(..at).unwrap_or_default();
        text = String::from_utf8_lossy(parent(kept.as_bytes())).into_owned();
    }
    if text.is_empty() { "/".to_owned() } else { text }
}

fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

/// Drops what lies inside another hierarchy.
fn reduce(mut trees: Vec<String>) -> Vec<String> {
    trees.sort();
    trees.dedup();
    if trees.first().is_some_and(|first| first == "/") {
        trees.truncate(1);
        return trees;
    }
    let listed = |path: &str| trees.binary_search_by(|tree| tree.as_str().cmp(path)).is_ok();
    let inside = |tree: &str| tree.match_indices('/').any(|(end, _)| listed(&tree[..end]));
    let outer: Vec<bool> = trees.iter().map(|tree| !inside(tree)).collect();
    trees.into_iter().zip(outer).filter_map(|(tree, outer)| outer.then_some(tree)).collect()
}

/// Returns whether the steps allow exactly some hierarchies.
fn expressible(program: &Program, rules: &[CompiledRule], default: Verdict) -> bool {
    let steps: Vec<_> = program.steps.iter().filter_map(|step| rules.get(usize::from(step.rule))).collect();
    let last_allows = program.total && steps.last().is_some_and(|rule| rule.effect == Verdict::Allow);
    let allows_all = last_allows || (!program.total && default == Verdict::Allow);
    if allows_all {
        return steps.iter().all(|rule| rule.effect == Verdict::Allow);
    }
    let mut stopped = false;
    for rule in steps {
        if rule.effect == Verdict::Allow {
            let trees = rule.path_globs.as_ref().is_some_and(|globs| {
                globs.iter().all(|glob| glob.as_tree().is_some() || glob.as_literal().is_some())
            });
            // After a rule that stops, an allowed tree could hold what was stopped.
            if stopped || rule.narrow || !trees || rule.takes_away() {
                return false;
            }
        } else {
            stopped = true;
        }
    }
    true
}
