//! Minimisation of sparse automata: states that cannot be told apart become one.
//!
//! Blocks of states are split until all states of a block lead to the same blocks. As in Hopcroft's algorithm only
//! states are looked at again that lead to one that has changed its block; unlike there, by all symbols at once, since
//! most states have few edges.

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
        let mut partition = Partition::new(self);
        while !partition.dirty.is_empty() {
            partition.refine(self);
        }
        // In the order of their first states.
        let mut numbers: Map<u32, u32> = Map::default();
        let mut firsts = Vec::new();
        let mut place = Vec::with_capacity(self.states.len());
        for (at, &block) in partition.block.iter().enumerate() {
            let next = index(numbers.len());
            let number = *numbers.entry(block).or_insert(next);
            if number == next {
                firsts.push(at);
            }
            place.push(number);
        }
        let states = firsts.into_iter().map(|at| {
            let (fallback, edges) = self.seen(at, &place);
            Vertex { value: self.states.get(at).map_or(0, |vertex| vertex.value), fallback, edges }
        });
        (Self { states: states.collect() }, place)
    }

    /// Returns for each state those that lead to it.
    fn sources(&self) -> Vec<Vec<u32>> {
        let mut sources = vec![Vec::new(); self.states.len()];
        for (at, vertex) in (0..).zip(&self.states) {
            for next in vertex.edges.iter().map(|edge| edge.1).chain([vertex.fallback]) {
                if let Some(list) = sources.get_mut(next as usize)
                    && list.last() != Some(&at)
                {
                    list.push(at);
                }
            }
        }
        sources
    }

    /// Where a state leads, in blocks.
    fn seen(&self, at: usize, block: &[u32]) -> (u32, Vec<(Symbol, u32)>) {
        let Some(vertex) = self.states.get(at) else { return (0, Vec::new()) };
        let of = |state: u32| block.get(state as usize).copied().unwrap_or(0);
        let fallback = of(vertex.fallback);
        let edges = vertex.edges.iter().map(|&(symbol, next)| (symbol, of(next)));
        (fallback, edges.filter(|&(_, next)| next != fallback).collect())
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

/// States in blocks.
struct Partition {
    block: Vec<u32>,
    members: Vec<Vec<u32>>,
    sources: Vec<Vec<u32>>,
    /// States that lead to one which has changed its block since they were last looked at. All others of a block lead
    /// to the same blocks.
    dirty: Vec<u32>,
    marked: Vec<bool>,
}

impl Partition {
    fn new(graph: &Graph) -> Self {
        let mut values: Map<u32, u32> = Map::default();
        let mut block = Vec::with_capacity(graph.states.len());
        let mut members: Vec<Vec<u32>> = Vec::new();
        for (at, vertex) in (0..).zip(&graph.states) {
            let next = index(values.len());
            let number = *values.entry(vertex.value).or_insert(next);
            if number == next {
                members.push(Vec::new());
            }
            if let Some(list) = members.get_mut(number as usize) {
                list.push(at);
            }
            block.push(number);
        }
        let dirty = (0..index(graph.states.len())).collect();
        let marked = vec![true; graph.states.len()];
        Self { block, members, sources: graph.sources(), dirty, marked }
    }

    fn block(&self, state: u32) -> u32 {
        self.block.get(state as usize).copied().unwrap_or(0)
    }

    fn mark(&mut self, state: u32) {
        if let Some(mark) = self.marked.get_mut(state as usize)
            && !std::mem::replace(mark, true)
        {
            self.dirty.push(state);
        }
    }

    /// Looks at every dirty state once.
    fn refine(&mut self, graph: &Graph) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable_by_key(|&state| (self.block(state), state));
        let mut rest = &dirty[..];
        while let Some(&first) = rest.first() {
            // Splitting moves nothing out of a block that comes later.
            let own = self.block(first);
            let length = rest.iter().take_while(|&&state| self.block(state) == own).count();
            let (run, others) = rest.split_at(length);
            self.split(graph, run);
            rest = others;
        }
    }

    /// Splits the block of some dirty states.
    fn split(&mut self, graph: &Graph, run: &[u32]) {
        let Some(own) = run.first().map(|&state| self.block(state)) else { return };
        let all = self.members.get(own as usize).map_or(&[][..], Vec::as_slice);
        if all.len() == 1 {
            self.clear(run);
            return;
        }
        let mut known: Map<(u32, Vec<(Symbol, u32)>), usize> = Map::default();
        let mut parts: Vec<Vec<u32>> = Vec::new();
        let mut stays = None;
        if all.len() > run.len() {
            // The others of the block agree with each other as long as they are clean.
            let clean = |state: &&u32| !self.marked.get(**state as usize).is_some_and(|&mark| mark);
            let Some(&other) = all.iter().find(clean) else {
                self.dirty.extend_from_slice(run);
                return;
            };
            known.insert(graph.seen(other as usize, &self.block), 0);
            parts.push(Vec::new());
            stays = Some(0);
        }
        for &state in run {
            let part = *known.entry(graph.seen(state as usize, &self.block)).or_insert(parts.len());
            if part == parts.len() {
                parts.push(Vec::new());
            }
            if let Some(list) = parts.get_mut(part) {
                list.push(state);
            }
        }
        self.clear(run);
        let largest = || (0..parts.len()).max_by_key(|&part| parts.get(part).map_or(0, Vec::len));
        let stays = stays.or_else(largest);
        let count = self.members.len();
        for (_, part) in parts.into_iter().enumerate().filter(|&(at, _)| Some(at) != stays) {
            self.leave(part);
        }
        if self.members.len() > count {
            let block = &self.block;
            if let Some(list) = self.members.get_mut(own as usize) {
                list.retain(|&state| block.get(state as usize) == Some(&own));
            }
        }
    }

    fn clear(&mut self, run: &[u32]) {
        for &state in run {
            if let Some(mark) = self.marked.get_mut(state as usize) {
                *mark = false;
            }
        }
    }

    /// Puts some states into a block of their own.
    fn leave(&mut self, part: Vec<u32>) {
        let new = index(self.members.len());
        for &state in &part {
            if let Some(block) = self.block.get_mut(state as usize) {
                *block = new;
            }
        }
        for &state in &part {
            let sources = self.sources.get_mut(state as usize).map(std::mem::take).unwrap_or_default();
            sources.iter().for_each(|&source| self.mark(source));
            if let Some(slot) = self.sources.get_mut(state as usize) {
                *slot = sources;
            }
        }
        self.members.push(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph() -> impl Strategy<Value = Graph> {
        let vertex = |count: u32| {
            (0..3_u32, 0..count, prop::collection::btree_map(1..4_u32, 0..count, 0..3)).prop_map(
                |(value, fallback, edges)| {
                    let edges = edges.into_iter().filter(|&(_, next)| next != fallback).collect();
                    Vertex { value, fallback, edges }
                },
            )
        };
        (1..24_u32)
            .prop_flat_map(move |count| prop::collection::vec(vertex(count), count as usize))
            .prop_map(|states| Graph { states })
    }

    /// How many blocks there are, found the slow way: every state is looked at until nothing changes.
    fn blocks(graph: &Graph) -> usize {
        let mut block: Vec<u32> = graph.states.iter().map(|vertex| vertex.value).collect();
        for _ in 0..graph.states.len() {
            let mut known = Map::default();
            let seen = (0..block.len()).map(|at| (block[at], graph.seen(at, &block)));
            block = seen
                .map(|key| {
                    let next = index(known.len());
                    *known.entry(key).or_insert(next)
                })
                .collect();
        }
        block.iter().max().map_or(0, |&last| last as usize + 1)
    }

    proptest! {
        #[test]
        fn the_smallest_that_means_the_same(graph in graph(), text in prop::collection::vec(0..4_u32, 0..12)) {
            let (small, place) = graph.minimised();
            prop_assert_eq!(small.states.len(), blocks(&graph));
            for start in 0..index(graph.states.len()) {
                let run = |graph: &Graph, start| {
                    let end = text.iter().fold(start, |state, &symbol| graph.step(state, symbol));
                    graph.states[end as usize].value
                };
                prop_assert_eq!(run(&graph, start), run(&small, place[start as usize]));
            }
        }
    }
}
