//! Automata in one array of cells: the double array that the kernel's programs read.
//!
//! Two cells of each state come first, then the edges of all of them, interleaved. A look-up that hits the edge of
//! another state finds that state's number in it and falls back; it must never hit a state's own cells, which say
//! something else, so no base is smaller than where the edges begin.

use super::TooLarge;
use super::minimise::Graph;
use super::nfa::{Map, Symbol, index};

/// A cell without an edge.
pub(super) const FREE: u64 = u32::MAX as u64;
/// Edges of a state, by symbol.
type Edges<'g> = &'g [(Symbol, u32)];

/// Cells per state.
pub(super) const STRIDE: u32 = 2;
/// How many places are tried before a state's edges go to the end.
const TRIES: usize = 256;

/// Two numbers in one cell; the first is in the low half.
pub(super) const fn cell(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}

/// Packs automata, one after the other. The number of a state is that of its first cell. `symbols` is how many each
/// automaton has.
pub(super) fn pack(graphs: &[(&Graph, u32)], limit: usize) -> Result<Vec<u64>, TooLarge> {
    let states: usize = graphs.iter().map(|(graph, _)| graph.states.len()).sum();
    let area = states * STRIDE as usize;
    let mut cells = vec![0; area];
    let mut order: Vec<(u32, u32, Edges<'_>)> = Vec::with_capacity(states);
    let mut offset = 0;
    for (graph, _) in graphs {
        for vertex in &graph.states {
            let number = index(order.len()) * STRIDE;
            if let Some([first, second]) =
                cells.get_mut(number as usize..).and_then(|tail| tail.first_chunk_mut())
            {
                *first = cell(index(area), offset + vertex.fallback * STRIDE);
                *second = cell(vertex.value, 0);
            }
            order.push((number, offset, &vertex.edges));
        }
        offset = index(order.len()) * STRIDE;
    }
    // Those with many edges first; the others fill the gaps.
    order.sort_by_key(|&(number, _, edges)| (std::cmp::Reverse(edges.len()), number));
    let mut gaps = Gaps { area, next: (0..=index(area)).collect(), tried: Map::default() };
    let mut top = area;
    for (number, offset, edges) in order.into_iter().take_while(|(_, _, edges)| !edges.is_empty()) {
        let base = gaps.place(&cells, edges);
        for &(symbol, next) in edges {
            let at = base + symbol as usize;
            if at >= limit {
                return Err(TooLarge::Cells);
            }
            if at >= cells.len() {
                cells.resize(at + 1, FREE);
            }
            if let Some(slot) = cells.get_mut(at) {
                *slot = cell(number, offset + next * STRIDE);
            }
            gaps.take(at);
        }
        top = top.max(base);
        if let Some(state) = cells.get_mut(number as usize) {
            *state = cell(index(base), (*state >> 32) as u32);
        }
    }
    // Every symbol of every state is in range.
    let symbols = graphs.iter().map(|&(_, symbols)| symbols as usize).max().unwrap_or(0);
    let end = top + symbols;
    if end > limit {
        return Err(TooLarge::Cells);
    }
    cells.resize(cells.len().max(end), FREE);
    Ok(cells)
}

/// Where edges can still go.
struct Gaps {
    area: usize,
    /// For each cell a later or equal one, at the end of this chain the next that is free.
    next: Vec<u32>,
    /// How far cells have been tried for this many edges of which this symbol is the first.
    tried: Map<(usize, Symbol), usize>,
}

impl Gaps {
    /// Returns a base at which all edges fall on free cells.
    fn place(&mut self, cells: &[u64], edges: Edges<'_>) -> usize {
        let Some(&(first, _)) = edges.first() else { return self.area };
        let key = (edges.len(), first);
        let mut at = self.tried.get(&key).copied().unwrap_or(self.area + first as usize);
        for _ in 0..TRIES {
            at = self.free(at);
            let base = at - first as usize;
            let fits = |&(symbol, _): &(Symbol, u32)| {
                cells.get(base + symbol as usize).is_none_or(|&cell| cell == FREE)
            };
            if at >= cells.len() || edges.iter().all(fits) {
                break;
            }
            at += 1;
        }
        at = self.free(at);
        let base = at - first as usize;
        let free =
            |&(symbol, _): &(Symbol, u32)| cells.get(base + symbol as usize).is_none_or(|&cell| cell == FREE);
        if !edges.iter().all(free) {
            at = cells.len().max(at);
        }
        self.tried.insert(key, at);
        at - first as usize
    }

    /// Returns the first free cell from one on.
    fn free(&mut self, from: usize) -> usize {
        let mut at = from;
        while let Some(&next) = self.next.get(at)
            && next as usize != at
        {
            at = next as usize;
        }
        // The way is short the next time.
        let mut back = from;
        while let Some(slot) = self.next.get_mut(back)
            && *slot as usize != back
        {
            back = std::mem::replace(slot, index(at)) as usize;
        }
        at
    }

    fn take(&mut self, at: usize) {
        while self.next.len() <= at + 1 {
            self.next.push(index(self.next.len()));
        }
        if let Some(slot) = self.next.get_mut(at) {
            *slot = index(at + 1);
        }
    }
}
