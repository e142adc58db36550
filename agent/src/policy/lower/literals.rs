//! Directories and files that patterns name literally: by them the kernel knows an object that is reached by another
//! path.

use std::collections::BTreeSet;

use super::super::compile::CompiledPolicy;
use super::super::glob::Glob;
use super::TooLarge;
use super::determinize::{Machine, Pruning};
use super::names::Names;
use super::nfa::Map;
use super::program::is_tree;
use super::split::Groups;
use crate::intent::path_text;
use crate::regress::unescaped;

/// A directory or file, and where in the automaton over paths its path ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// Its path.
    pub path: Vec<u8>,
    /// The state after it.
    pub state: u32,
}

/// Returns the paths that patterns name: whole ones, those of trees, and the directories before a first wildcard.
pub(super) fn wanted(
    policy: &CompiledPolicy,
    hidden: &[Vec<u8>],
    uses: impl Fn(usize) -> bool,
) -> BTreeSet<Vec<u8>> {
    let mut found: BTreeSet<Vec<u8>> = hidden.iter().filter(|path| is_tree(path)).cloned().collect();
    let mut add = |text: &[u8]| {
        found.insert(text.to_vec());
        // The text may stand for a name that is no text.
        let bytes = std::str::from_utf8(text).map_or_else(|_no_text| text.to_vec(), unescaped);
        if path_text(&bytes).as_bytes() == text {
            found.insert(bytes);
        }
    };
    for glob in policy.protect.iter().flatten() {
        add(literal(glob));
    }
    for (_, rule) in policy.rules.iter().enumerate().filter(|&(at, _)| uses(at)) {
        for glob in rule.path_globs.iter().flatten().chain(&rule.not_path_globs) {
            add(literal(glob));
        }
        for value in rule.values.iter().flatten() {
            add(value.as_bytes());
        }
    }
    // The root is where every path begins.
    found.retain(|path| path.len() > 1 && is_tree(path));
    found
}

fn literal(glob: &Glob) -> &[u8] {
    glob.as_literal().or_else(|| glob.as_tree()).unwrap_or_else(|| {
        let prefix = glob.prefix();
        let end = prefix.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        prefix.get(..end).unwrap_or_default()
    })
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').skip(1)
}

/// Where literals are.
#[derive(Debug, Default)]
pub(super) struct Located {
    /// With their states; none where everything is held.
    pub(super) states: Vec<(Vec<u8>, Option<u32>)>,
    /// Paths to states to which no path in ASCII leads.
    pub(super) ways: Map<u32, Vec<u8>>,
}

/// Finds the state of each path; none where its text says another thing than the texts of what lies below it.
pub(super) fn locate<P: Pruning>(
    wanted: BTreeSet<Vec<u8>>,
    paths: &mut Machine<'_, P>,
    start: u32,
    names: &Names,
    groups: &Groups,
) -> Result<Located, TooLarge> {
    let mut located = Located::default();
    for path in wanted {
        let state = if path.last().is_some_and(u8::is_ascii_whitespace) || path.ends_with(b"\x0b") {
            None
        } else {
            let mut state = start;
            let text = path_text(&path);
            let (texts, bytes) = (components(text.as_bytes()), components(&path));
            let mut way = Vec::new();
            for (component, name) in texts.zip(bytes) {
                way.extend_from_slice(b"/");
                way.extend_from_slice(name);
                let count = paths.states.len();
                state = if name.is_ascii() && Some(names.class(component)) != names.odd {
                    paths.step(state, names.class(component))
                } else {
                    // What is hidden is hidden by its bytes.
                    let found = [groups.of_text(component), groups.of_name(name)].concat();
                    paths.step_by(state, &found)?
                };
                // A state that no path in ASCII leads to has its own ways on.
                if paths.states.len() > count {
                    located.ways.insert(state, way.clone());
                    paths.explore()?;
                }
            }
            Some(state)
        };
        located.states.push((path, state));
    }
    Ok(located)
}
