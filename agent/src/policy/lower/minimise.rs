//! Moore's algorithm on sparse automata: states that cannot be told apart become one.

use super::nfa::{Map, Symbol, index};

/// An automaton whose states have values.
#[derive(Debug, Default, Clone)]
pub(super) struct Graph {
    pub(super) states: Vec<Vertex>,
}

/// One state.
#[derive(Debug, Default, Clone)]
pub(super) struct Vertex {
    pub(super) value: u32,
    pub(super) fallback: u32,
    /// By symbol, sorted; none leads where the fallback does.
    pub(super) edges: Vec<(Symbol, u32)>,
}

impl Graph {
    /// Returns where a symbol leads.
    pub(super) fn step(&self, state: u32, symbol: Symbol) -> u32 {
        let Some(vertex) = self.states.get(state as usize) else { return state };
        match vertex.edges.binary_search_by_key(&symbol, |edge| edge.0) {
            Ok(at) => vertex.edges.get(at).map_or(vertex.fallback, |edge| edge.1),
            Err(_missing) => vertex.fallback,
        }
    }

    /// Merges what is the same. Returns the smaller automaton and where each state is now.
    pub(super) fn minimised(&self) -> (Self, Vec<u32>) {
        let mut block: Vec<u32> = Vec::with_capacity(self.states.len());
        let mut values: Map<u32, u32> = Map::default();
        for vertex in &self.states {
            let next = index(values.len());
            block.push(*values.entry(vertex.value).or_insert(next));
        }
        let mut count = values.len();
        loop {
            let (refined, blocks) = self.refine(&block);
            block = refined;
            if blocks == count {
                break;
            }
            count = blocks;
        }
        let mut small = Self { states: vec![Vertex::default(); count] };
        let mut done = vec![false; count];
        for (at, &number) in block.iter().enumerate() {
            let (Some(slot), Some(done)) =
                (small.states.get_mut(number as usize), done.get_mut(number as usize))
            else {
                continue;
            };
            if !*done {
                *done = true;
                let (fallback, edges) = self.seen(at, &block);
                let value = self.states.get(at).map_or(0, |vertex| vertex.value);
                *slot = Vertex { value, fallback, edges };
            }
        }
        (small, block)
    }

    /// Where a state leads, in blocks.
    fn seen(&self, at: usize, block: &[u32]) -> (u32, Vec<(Symbol, u32)>) {
        let Some(vertex) = self.states.get(at) else { return (0, Vec::new()) };
        let of = |state: u32| block.get(state as usize).copied().unwrap_or(0);
        let fallback = of(vertex.fallback);
        let edges = vertex.edges.iter().map(|&(symbol, next)| (symbol, of(next)));
        (fallback, edges.filter(|&(_, next)| next != fallback).collect())
    }

    /// Splits blocks whose states lead to different blocks.
    fn refine(&self, block: &[u32]) -> (Vec<u32>, usize) {
        let mut known: Map<(u32, u32, Vec<(Symbol, u32)>), u32> = Map::default();
        let mut refined = Vec::with_capacity(block.len());
        for (at, &own) in block.iter().enumerate() {
            let (fallback, edges) = self.seen(at, block);
            let next = index(known.len());
            refined.push(*known.entry((own, fallback, edges)).or_insert(next));
        }
        (refined, known.len())
    }

    /// Numbers symbols anew so that those by which no state tells are one; symbol 0 stays what has no edge anywhere.
    ///
    /// Returns the new number of each symbol and how many there are.
    pub(super) fn merge_symbols(&mut self, count: usize) -> (Vec<Symbol>, u32) {
        let mut columns: Vec<Vec<(u32, u32)>> = vec![Vec::new(); count];
        for (at, vertex) in self.states.iter().enumerate() {
            for &(symbol, next) in &vertex.edges {
                if let Some(column) = columns.get_mut(symbol as usize) {
                    column.push((index(at), next));
                }
            }
        }
        let mut known: Map<Vec<(u32, u32)>, Symbol> = Map::default();
        known.insert(Vec::new(), 0);
        let mut numbers = Vec::with_capacity(count);
        for column in columns {
            let next = index(known.len());
            numbers.push(*known.entry(column).or_insert(next));
        }
        for vertex in &mut self.states {
            for (symbol, _) in &mut vertex.edges {
                *symbol = numbers.get(*symbol as usize).copied().unwrap_or(0);
            }
            vertex.edges.sort_unstable();
            vertex.edges.dedup();
        }
        (numbers, index(known.len()))
    }
}
