//! Automata in one array of cells: the double array that the kernel's programs read.
//!
//! Two cells of each state come first, then the edges of all of them, interleaved. A look-up that hits the edge of
//! another state finds that state's number in it and falls back; it must never hit a state's own cells, which say
//! something else, so no base is smaller than where the edges begin.

use super::TooLarge;
use super::minimise::Graph;
use super::nfa::{Symbol, index};

/// A cell without an edge.
pub(super) const FREE: u64 = u32::MAX as u64;
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
    let mut order: Vec<(u32, u32, &[(Symbol, u32)])> = Vec::with_capacity(states);
    let mut offset = 0;
    for (graph, _) in graphs {
        for vertex in &graph.states {
            let number = index(order.len()) * STRIDE;
            if let Some([first, second]) = cells.get_mut(number as usize..).and_then(|tail| tail.first_chunk_mut()) {
                *first = cell(index(area), offset + vertex.fallback * STRIDE);
                *second = cell(vertex.value, 0);
            }
            order.push((number, offset, &vertex.edges));
        }
        offset = index(order.len()) * STRIDE;
    }
    // Those with many edges first; the others fill the gaps.
    order.sort_by_key(|&(number, _, edges)| (std::cmp::Reverse(edges.len()), number));
    let mut first_free = area;
    let mut top = area;
    for (number, offset, edges) in order {
        let Some(&(first, _)) = edges.first() else { break };
        while cells.get(first_free).is_some_and(|&cell| cell != FREE) {
            first_free += 1;
        }
        let base = place(&cells, edges, area.max(first_free.saturating_sub(first as usize)));
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

/// Returns a base at which all edges fall on free cells.
fn place(cells: &[u64], edges: &[(Symbol, u32)], from: usize) -> usize {
    let fits = |base: &usize| {
        edges.iter().all(|&(symbol, _)| cells.get(base + symbol as usize).is_none_or(|&cell| cell == FREE))
    };
    (from..from + TRIES).find(fits).unwrap_or_else(|| from.max(cells.len()))
}
