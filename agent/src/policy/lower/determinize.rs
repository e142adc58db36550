//! Subset construction, sparse: a state has an edge for the symbols that its patterns look at, and one fallback.
//!
//! States would multiply where patterns cover whole trees: below `**/a/**`, below `**/b/**`, below both. Whoever uses
//! the automaton says which labels still make a difference once others are settled ([`Pruning`]); nodes that can only
//! lead to the rest are dropped, and with them most of these states.

use super::TooLarge;
use super::nfa::{Label, Map, Nfa, NodeId, Symbol, index};

/// Which labels matter.
pub(super) trait Pruning {
    /// What follows from the settled labels, worked out once for all states that have the same.
    type View;

    /// Looks at the labels that are settled for whatever comes, and drops those that make no difference.
    fn settle(&mut self, done: &mut Vec<Label>) -> Self::View;

    /// Returns whether a label that is not settled makes a difference.
    fn wanted(&self, view: &Self::View, label: Label) -> bool;
}

/// Every label matters.
#[derive(Debug)]
pub(super) struct Everything;

impl Pruning for Everything {
    type View = ();

    fn settle(&mut self, _done: &mut Vec<Label>) {}

    fn wanted(&self, _view: &(), _label: Label) -> bool {
        true
    }
}

/// A state: what a text is if it ends here, and how it can go on.
#[derive(Debug)]
pub(super) struct State {
    /// Number of the way on, which many states share.
    pub(super) body: u32,
    /// What a text that ends here is, sorted.
    pub(super) labels: Vec<Label>,
    /// The state it was first reached from, and by which symbol; none for the fallback.
    pub(super) parent: Option<(u32, Option<Symbol>)>,
}

/// Where a text in the middle of the patterns can go.
#[derive(Debug)]
pub(super) struct Body {
    nodes: Box<[NodeId]>,
    /// Number of the settled labels.
    settled: u32,
    /// The first state that goes on like this.
    first: u32,
    pub(super) fallback: u32,
    /// By symbol, sorted; none leads where the fallback does.
    pub(super) edges: Vec<(Symbol, u32)>,
}

/// A construction, and what has been made.
pub(super) struct Machine<'a, P: Pruning> {
    nfa: &'a Nfa,
    /// The input symbols that a symbol of the patterns stands for.
    members: &'a [Vec<Symbol>],
    pruning: P,
    pub(super) states: Vec<State>,
    pub(super) bodies: Vec<Body>,
    known: Map<(u32, Vec<Label>), u32>,
    known_bodies: Map<(Box<[NodeId]>, u32), u32>,
    settled: Vec<(Vec<Label>, P::View)>,
    /// From settled labels before pruning, and from those after it.
    known_settled: Map<Vec<Label>, u32>,
    /// Where states lead that share what every symbol leads to and what is settled, by the other targets.
    ways: Map<(Vec<NodeId>, u32), Ways>,
    explored: usize,
    limit: usize,
}

/// From targets to states.
type Ways = Map<Vec<NodeId>, u32>;

impl<'a, P: Pruning> Machine<'a, P> {
    pub(super) fn new(nfa: &'a Nfa, members: &'a [Vec<Symbol>], pruning: P, limit: usize) -> Self {
        Self {
            nfa,
            members,
            pruning,
            states: Vec::new(),
            bodies: Vec::new(),
            known: Map::default(),
            known_bodies: Map::default(),
            settled: Vec::new(),
            known_settled: Map::default(),
            ways: Map::default(),
            explored: 0,
            limit,
        }
    }

    /// Returns the state in which nothing has been read.
    pub(super) fn start(&mut self, root: NodeId) -> Result<u32, TooLarge> {
        self.state(vec![root], None, None)
    }

    /// Works out where every state leads.
    pub(super) fn explore(&mut self) -> Result<(), TooLarge> {
        while self.explored < self.bodies.len() {
            self.explore_one(index(self.explored))?;
            self.explored += 1;
        }
        Ok(())
    }

    /// Returns how a state goes on.
    pub(super) fn body(&self, state: u32) -> Option<&Body> {
        let state = self.states.get(state as usize)?;
        self.bodies.get(state.body as usize)
    }

    /// Returns where an explored state leads by a symbol.
    pub(super) fn step(&self, from: u32, symbol: Symbol) -> u32 {
        let Some(body) = self.body(from) else { return from };
        match body.edges.binary_search_by_key(&symbol, |edge| edge.0) {
            Ok(at) => body.edges.get(at).map_or(body.fallback, |edge| edge.1),
            Err(_missing) => body.fallback,
        }
    }

    /// Returns where a state leads by a symbol that is in these groups of the patterns, without an edge.
    pub(super) fn step_by(&mut self, from: u32, groups: &[Symbol]) -> Result<u32, TooLarge> {
        let Some(body) = self.body(from) else { return Ok(from) };
        let (mut targets, edges) = self.targets(body);
        let settled = body.settled;
        let hit = |(symbol, _): &&(Symbol, NodeId)| groups.contains(symbol);
        targets.extend(edges.iter().filter(hit).map(|&(_, target)| target));
        self.state(targets, Some((from, None)), Some(settled))
    }

    /// Where every symbol leads, and where others lead besides.
    fn targets(&self, body: &Body) -> (Vec<NodeId>, Vec<(Symbol, NodeId)>) {
        let (mut every, mut edges) = (Vec::new(), Vec::new());
        for &id in &body.nodes {
            let Some(node) = self.nfa.node(id) else { continue };
            edges.extend_from_slice(&node.edges);
            every.extend(node.any);
            if node.looped {
                every.push(id);
            }
        }
        (every, edges)
    }

    fn explore_one(&mut self, at: u32) -> Result<(), TooLarge> {
        let Some(body) = self.bodies.get(at as usize) else { return Ok(()) };
        let (every, edges) = self.targets(body);
        let (from, settled) = (body.first, body.settled);
        let mut pairs: Vec<(Symbol, NodeId)> = Vec::with_capacity(edges.len());
        for (symbol, target) in edges {
            let members = self.members.get(symbol as usize).map_or(&[][..], Vec::as_slice);
            pairs.extend(members.iter().map(|&symbol| (symbol, target)));
        }
        pairs.sort_unstable();
        pairs.dedup();
        // Most places below one directory share nearly everything; what is known of others need not be found again.
        let key = (every, settled);
        let mut ways = self.ways.remove(&key).unwrap_or_default();
        let fallback = self.way(&mut ways, &key, (from, None), &[])?;
        let mut out = Vec::new();
        let mut targets = Vec::new();
        for run in pairs.chunk_by(|a, b| a.0 == b.0) {
            let Some(&(symbol, _)) = run.first() else { continue };
            targets.clear();
            targets.extend(run.iter().map(|&(_, target)| target));
            let next = self.way(&mut ways, &key, (from, Some(symbol)), &targets)?;
            if next != fallback {
                out.push((symbol, next));
            }
        }
        self.ways.insert(key, ways);
        if let Some(body) = self.bodies.get_mut(at as usize) {
            body.fallback = fallback;
            body.edges = out;
        }
        Ok(())
    }

    fn way(
        &mut self,
        ways: &mut Ways,
        (every, settled): &(Vec<NodeId>, u32),
        parent: (u32, Option<Symbol>),
        targets: &[NodeId],
    ) -> Result<u32, TooLarge> {
        if let Some(&known) = ways.get(targets) {
            return Ok(known);
        }
        let next = self.state([every, targets].concat(), Some(parent), Some(*settled))?;
        ways.insert(targets.to_vec(), next);
        Ok(next)
    }

    /// Returns the state of these nodes, after one in which some labels were settled.
    fn state(
        &mut self,
        mut nodes: Vec<NodeId>,
        parent: Option<(u32, Option<Symbol>)>,
        before: Option<u32>,
    ) -> Result<u32, TooLarge> {
        let mut at = 0;
        while let Some(&id) = nodes.get(at) {
            nodes.extend(self.nfa.node(id).and_then(|node| node.deep));
            at += 1;
        }
        nodes.sort_unstable();
        nodes.dedup();
        let settled = self.settle(before, &nodes);
        let labels = self.labels(&nodes, settled);
        if let Some((done, view)) = self.settled.get(settled as usize) {
            let wanted =
                |label: &Label| done.binary_search(label).is_err() && self.pruning.wanted(view, *label);
            nodes.retain(|&id| self.nfa.reach(id).iter().any(wanted));
        }
        let number = index(self.states.len());
        let body = self.body_of(nodes, settled, number);
        let key = (body, labels);
        if let Some(&known) = self.known.get(&key) {
            return Ok(known);
        }
        if self.states.len() >= self.limit {
            return Err(TooLarge::States);
        }
        self.states.push(State { body, labels: key.1.clone(), parent });
        self.known.insert(key, number);
        Ok(number)
    }

    fn body_of(&mut self, nodes: Vec<NodeId>, settled: u32, first: u32) -> u32 {
        let key = (nodes.into_boxed_slice(), settled);
        if let Some(&known) = self.known_bodies.get(&key) {
            return known;
        }
        let number = index(self.bodies.len());
        let nodes = key.0.clone();
        self.bodies.push(Body { nodes, settled, first, fallback: first, edges: Vec::new() });
        self.known_bodies.insert(key, number);
        number
    }

    /// Returns the number of the settled labels, after those of some nodes were added.
    fn settle(&mut self, before: Option<u32>, nodes: &[NodeId]) -> u32 {
        let old =
            before.and_then(|before| self.settled.get(before as usize)).map_or(&[][..], |(done, _)| done);
        let mut done = old.to_vec();
        for &id in nodes {
            let covers = self.nfa.node(id).map_or(&[][..], |node| &node.covers);
            done.extend(covers.iter().filter(|label| old.binary_search(label).is_err()));
        }
        match before {
            Some(before) if done.len() == old.len() => before,
            _ => self.settled(done),
        }
    }

    /// Returns the number of a set of labels.
    fn settled(&mut self, mut done: Vec<Label>) -> u32 {
        done.sort_unstable();
        done.dedup();
        if let Some(&known) = self.known_settled.get(&done) {
            return known;
        }
        let asked = done.clone();
        let view = self.pruning.settle(&mut done);
        let next = index(self.settled.len());
        let number = *self.known_settled.entry(done.clone()).or_insert(next);
        if number == next {
            self.settled.push((done, view));
        }
        self.known_settled.insert(asked, number);
        number
    }

    /// What a text is that ends at these nodes. Where it ends everything is settled.
    fn labels(&mut self, nodes: &[NodeId], settled: u32) -> Vec<Label> {
        let Some((done, view)) = self.settled.get(settled as usize) else { return Vec::new() };
        let mut labels = done.clone();
        for &id in nodes {
            let ends = self.nfa.node(id).map_or(&[][..], |node| &node.ends);
            labels.extend(ends.iter().filter(|&&label| self.pruning.wanted(view, label)));
        }
        if labels.len() == done.len() {
            return labels;
        }
        let all = self.settled(labels);
        self.settled.get(all as usize).map_or_else(Vec::new, |(labels, _)| labels.clone())
    }
}
