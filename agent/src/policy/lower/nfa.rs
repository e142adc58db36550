//! Patterns as one nondeterministic automaton: a trie that grows pattern by pattern, and the automaton that it becomes.
//!
//! Both automata of the kernel come from this one form. Over bytes a symbol is a byte or a class of characters, over
//! components it is a group of component patterns. A node may have a *deep* child, which is entered without reading
//! anything and which every symbol leads back to: `*` inside a component, `**` between components.
//!
//! Nodes with the same future become one when the trie is finished, so that a hundred names with the same meaning cost
//! one node, and not a hundred states later.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::TooLarge;

pub(super) type Map<K, V> = HashMap<K, V, FxBuildHasher>;

pub(super) type NodeId = u32;
/// What a text that ends at a node is: a set of paths, or a group of component patterns.
pub(super) type Label = u32;
pub(super) type Symbol = u32;

/// The edge that every symbol takes.
const ANY: Symbol = u32::MAX;
/// The edge to the deep child.
const DEEP: Symbol = u32::MAX - 1;

/// A trie under construction.
#[derive(Debug)]
pub(super) struct Trie {
    children: Map<(NodeId, Symbol), NodeId>,
    nodes: Vec<Draft>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Draft {
    looped: bool,
    ends: Vec<Label>,
    covers: Vec<Label>,
}

impl Trie {
    /// Makes a trie that may have so many nodes.
    pub(super) fn new(limit: usize) -> Self {
        Self { children: Map::default(), nodes: Vec::new(), limit }
    }

    /// Makes a root.
    pub(super) fn root(&mut self) -> NodeId {
        self.nodes.push(Draft::default());
        index(self.nodes.len() - 1)
    }

    fn child(&mut self, node: NodeId, symbol: Symbol) -> Result<NodeId, TooLarge> {
        let next = index(self.nodes.len());
        let child = *self.children.entry((node, symbol)).or_insert(next);
        if child == next {
            if self.nodes.len() >= self.limit {
                return Err(TooLarge::Patterns);
            }
            self.nodes.push(Draft { looped: symbol == DEEP, ..Draft::default() });
        }
        Ok(child)
    }

    /// Returns where one symbol leads.
    pub(super) fn step(&mut self, node: NodeId, symbol: Symbol) -> Result<NodeId, TooLarge> {
        self.child(node, symbol)
    }

    /// Returns where any symbol leads.
    pub(super) fn any(&mut self, node: NodeId) -> Result<NodeId, TooLarge> {
        self.child(node, ANY)
    }

    /// Returns the node at which any number of symbols have been read.
    pub(super) fn deep(&mut self, node: NodeId) -> Result<NodeId, TooLarge> {
        if self.nodes.get(node as usize).is_some_and(|draft| draft.looped) {
            return Ok(node);
        }
        self.child(node, DEEP)
    }

    /// A text that ends here has the label.
    pub(super) fn ends(&mut self, node: NodeId, label: Label) {
        if let Some(draft) = self.nodes.get_mut(node as usize)
            && !draft.ends.contains(&label)
        {
            draft.ends.push(label);
        }
    }

    /// A text that comes by here has the label, however it goes on.
    pub(super) fn covers(&mut self, node: NodeId, label: Label) {
        if let Some(draft) = self.nodes.get_mut(node as usize)
            && !draft.covers.contains(&label)
        {
            draft.covers.push(label);
        }
    }

    /// Merges what has the same future. Returns the automaton and where each root is now.
    pub(super) fn finish(self, roots: &[NodeId]) -> (Nfa, Vec<NodeId>) {
        let mut edges: Vec<Vec<(Symbol, NodeId)>> = vec![Vec::new(); self.nodes.len()];
        for ((node, symbol), child) in self.children {
            if let Some(list) = edges.get_mut(node as usize) {
                list.push((symbol, child));
            }
        }
        let mut nfa = Nfa::default();
        let mut known: Map<Node, NodeId> = Map::default();
        let mut place = vec![0; self.nodes.len()];
        // Children are made after their parents, so the way back meets them first.
        for (at, (draft, edges)) in self.nodes.into_iter().zip(edges).enumerate().rev() {
            let node = Node::of(draft, &edges, &place);
            let id = match known.get(&node) {
                Some(&id) => id,
                None => {
                    let id = nfa.add(&node);
                    known.insert(node, id);
                    id
                }
            };
            if let Some(slot) = place.get_mut(at) {
                *slot = id;
            }
        }
        let roots = roots.iter().filter_map(|&root| place.get(root as usize).copied()).collect();
        (nfa, roots)
    }
}

/// One node of a finished automaton.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// By symbol, sorted.
    pub(super) edges: Vec<(Symbol, NodeId)>,
    pub(super) any: Option<NodeId>,
    pub(super) deep: Option<NodeId>,
    pub(super) looped: bool,
    pub(super) ends: Vec<Label>,
    pub(super) covers: Vec<Label>,
}

impl Node {
    fn of(draft: Draft, edges: &[(Symbol, NodeId)], place: &[NodeId]) -> Self {
        let Draft { looped, mut ends, mut covers } = draft;
        ends.sort_unstable();
        covers.sort_unstable();
        let mut node =
            Self { edges: Vec::with_capacity(edges.len()), any: None, deep: None, looped, ends, covers };
        for &(symbol, child) in edges {
            let child = place.get(child as usize).copied();
            match (symbol, child) {
                (ANY, child) => node.any = child,
                (DEEP, child) => node.deep = child,
                (_, Some(child)) => node.edges.push((symbol, child)),
                (_, None) => {}
            }
        }
        node.edges.sort_unstable();
        node
    }
}

/// A finished automaton.
#[derive(Debug, Default)]
pub(super) struct Nfa {
    pub(super) nodes: Vec<Node>,
    /// The labels that can still come after a node.
    reach: Vec<Vec<Label>>,
}

impl Nfa {
    fn add(&mut self, node: &Node) -> NodeId {
        let mut reach: Vec<Label> = if node.looped { node.ends.clone() } else { Vec::new() };
        let children = node.edges.iter().map(|&(_, child)| child).chain(node.any).chain(node.deep);
        for child in children {
            reach.extend(self.reach(child));
            let own = self.node(child).map_or([&[][..]; 2], |child| [&child.ends, &child.covers]);
            reach.extend(own.into_iter().flatten());
        }
        reach.sort_unstable();
        reach.dedup();
        self.reach.push(reach);
        self.nodes.push(node.clone());
        index(self.nodes.len() - 1)
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    /// Returns the labels that a text may still get if it goes on after a node.
    pub(super) fn reach(&self, id: NodeId) -> &[Label] {
        self.reach.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Replaces the symbols of all edges.
    pub(super) fn rename(&mut self, name: impl Fn(Symbol) -> Symbol) {
        for node in &mut self.nodes {
            for (symbol, _) in &mut node.edges {
                *symbol = name(*symbol);
            }
            node.edges.sort_unstable();
            node.edges.dedup();
        }
    }
}

/// Numbers are 32 bits wide in the kernel's tables; every list is limited to far less.
pub(super) fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
