//! Tables made by hand: rules on whole components, with `*` as a component of its own.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use gait::kernel_programs::{NamedPath, Tables};
use gait_ebpf::layout::NO_EDGES;

/// A word in which every operation has one verdict.
pub(crate) fn every(verdict: u8) -> u64 {
    0x5555_5555_5555_5555 * u64::from(verdict)
}

/// A word in which some operations have another verdict.
pub(crate) fn but(mut word: u64, operations: &[u32], verdict: u8) -> u64 {
    for operation in operations {
        word &= !(3 << (2 * operation));
        word |= u64::from(verdict) << (2 * operation);
    }
    word
}

/// An automaton before it is laid out: edges and what a text that ends here is.
#[derive(Default, Clone)]
struct Node {
    edges: BTreeMap<u32, usize>,
    fallback: usize,
    value: u32,
}

/// A policy: prefixes of paths with the word that holds for all below; the longest one counts.
pub(crate) struct Policy {
    names: Vec<Node>,
    paths: Vec<Node>,
    words: Vec<u64>,
    classes: BTreeMap<String, u32>,
    prefixes: Vec<(String, u32)>,
    cells: Vec<u64>,
    starts: (u32, u32),
    identities: Vec<NamedPath>,
    /// What the identities are of.
    kept: Vec<std::fs::File>,
    pub(crate) flags: u32,
}

/// Node 0 of the name automaton: where nothing matches any more.
const DEAD: usize = 0;

impl Policy {
    pub(crate) fn new(rest: u64) -> Self {
        let mut policy = Self {
            names: vec![Node::default(), Node::default()],
            paths: vec![Node::default()],
            words: vec![rest],
            classes: BTreeMap::new(),
            prefixes: Vec::new(),
            cells: Vec::new(),
            starts: (0, 0),
            identities: Vec::new(),
            kept: Vec::new(),
            flags: 0,
        };
        policy.names[1].fallback = DEAD;
        policy
    }

    fn class(&mut self, name: &str) -> u32 {
        if let Some(class) = self.classes.get(name) {
            return *class;
        }
        let class = u32::try_from(self.classes.len() + 1).unwrap();
        self.classes.insert(name.to_owned(), class);
        let mut at = 1;
        for byte in name.bytes() {
            at = match self.names[at].edges.get(&u32::from(byte)) {
                Some(next) => *next,
                None => {
                    self.names.push(Node { fallback: DEAD, ..Node::default() });
                    let next = self.names.len() - 1;
                    self.names[at].edges.insert(u32::from(byte), next);
                    next
                }
            };
        }
        self.names[at].value = class;
        class
    }

    /// Everything at and below a path.
    pub(crate) fn rule(mut self, path: &str, word: u64) -> Self {
        self.words.push(word);
        let region = u32::try_from(self.words.len() - 1).unwrap();
        self.prefixes.push((path.to_owned(), region));
        self
    }

    fn node(&mut self, path: &str) -> usize {
        let mut at = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let class = self.class(name);
            at = match self.paths[at].edges.get(&class) {
                Some(next) => *next,
                None => {
                    // Beside the named components, what holds above holds on: a node of its own that stays itself.
                    let value = self.paths[at].value;
                    let stay = self.stay(value);
                    self.paths.push(Node { fallback: stay, value, ..Node::default() });
                    let next = self.paths.len() - 1;
                    self.paths[at].edges.insert(class, next);
                    next
                }
            };
        }
        at
    }

    fn stay(&mut self, value: u32) -> usize {
        let known = self
            .paths
            .iter()
            .enumerate()
            .position(|(at, node)| node.value == value && node.fallback == at && node.edges.is_empty());
        known.unwrap_or_else(|| {
            let at = self.paths.len();
            self.paths.push(Node { fallback: at, value, ..Node::default() });
            at
        })
    }

    /// Lays the tables out. Rules must come with shorter paths first.
    pub(crate) fn done(mut self) -> Self {
        let stay = self.stay(0);
        self.paths[0].fallback = stay;
        for (path, region) in self.prefixes.clone() {
            let at = self.node(&path);
            let stay = self.stay(region);
            self.paths[at].value = region;
            self.paths[at].fallback = stay;
        }
        let mut cells = Vec::new();
        let names = lay_out(&self.names, &mut cells);
        let paths = lay_out(&self.paths, &mut cells);
        for (number, (path, _)) in self.prefixes.clone().iter().enumerate() {
            let Ok(file) = std::fs::File::open(path) else { continue };
            let at = self.node(path);
            let name = u32::try_from(number).unwrap();
            let descriptor = u32::try_from(file.as_raw_fd()).unwrap();
            self.identities.push(NamedPath { descriptor, state: paths[at], name });
            self.kept.push(file);
        }
        self.cells = cells;
        self.starts = (names[1], paths[0]);
        self
    }

    pub(crate) fn tables(&self) -> Tables<'_> {
        Tables {
            cells: &self.cells,
            words: &self.words,
            names: self.starts.0,
            paths: self.starts.1,
            images: self.starts.1,
            // Every region is an image class too; all have the same words here.
            image_classes: 1,
            flags: self.flags,
            identities: &self.identities,
            holder: std::process::id(),
        }
    }
}

/// Puts nodes into cells, each with room of its own. Returns the state of each.
fn lay_out(nodes: &[Node], cells: &mut Vec<u64>) -> Vec<u32> {
    let mut at = u32::try_from(cells.len()).unwrap();
    let mut states = Vec::new();
    for node in nodes {
        states.push(at);
        at += 2 + node.edges.keys().max().map_or(0, |most| most + 1);
    }
    for (node, state) in nodes.iter().zip(&states) {
        let fallback = states[node.fallback];
        let base = if node.edges.is_empty() { NO_EDGES } else { state + 2 };
        cells.push(u64::from(base) | u64::from(fallback) << 32);
        cells.push(u64::from(node.value));
        for symbol in 0..node.edges.keys().max().map_or(0, |most| most + 1) {
            cells.push(match node.edges.get(&symbol) {
                Some(next) => u64::from(*state) | u64::from(states[*next]) << 32,
                None => u64::from(u32::MAX),
            });
        }
    }
    states
}
