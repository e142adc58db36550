//! The automaton over the bytes of one component: of which class a name is.

use super::TooLarge;
use super::determinize::{Everything, Machine};
use super::minimise::{Graph, Vertex};
use super::nfa::{Map, Symbol, index};
use super::split::Groups;

/// Names and their classes: sets of groups of component patterns. Class 0 is that of names that no pattern matches.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) graph: Graph,
    start: u32,
    /// Of each group, the classes that have it.
    pub(super) members: Vec<Vec<Symbol>>,
    /// Of each class, one name.
    pub(super) witnesses: Vec<Option<Vec<u8>>>,
    /// The class of names whose text is not the name: white space at the end.
    pub(super) odd: Option<Symbol>,
}

impl Names {
    pub(super) fn new(groups: &Groups, limit: usize) -> Result<Self, TooLarge> {
        let odd_label = groups.confuse_white_space().then_some(groups.len());
        let (nfa, root, bytes) = groups.names(odd_label, limit)?;
        let mut machine = Machine::new(&nfa, &bytes, Everything, limit);
        let start = machine.start(root)?;
        machine.explore()?;
        let names = witnesses(&machine);
        let mut classes: Map<Vec<Symbol>, Symbol> = Map::default();
        classes.insert(Vec::new(), 0);
        let mut found = Self {
            graph: Graph::default(),
            start,
            members: vec![Vec::new(); groups.len() as usize],
            witnesses: vec![None],
            odd: None,
        };
        for (state, name) in machine.states.iter().zip(names) {
            let odd = odd_label.filter(|odd| state.labels.binary_search(odd).is_ok());
            // Of an odd name nothing else counts.
            let labels = odd.map_or_else(|| state.labels.clone(), |odd| vec![odd]);
            let next = index(classes.len());
            let class = *classes.entry(labels).or_insert(next);
            if class == next {
                found.witnesses.push(None);
                match odd {
                    Some(_) => found.odd = Some(class),
                    None => state.labels.iter().for_each(|&group| {
                        if let Some(members) = found.members.get_mut(group as usize) {
                            members.push(class);
                        }
                    }),
                }
            }
            if let Some(slot) = found.witnesses.get_mut(class as usize)
                && slot.is_none()
            {
                *slot = name;
            }
            let body = machine.bodies.get(state.body as usize);
            let (fallback, edges) = body.map_or((0, Vec::new()), |body| (body.fallback, body.edges.clone()));
            found.graph.states.push(Vertex { value: class, fallback, edges });
        }
        Ok(found)
    }

    pub(super) fn classes(&self) -> usize {
        self.witnesses.len()
    }

    /// Returns the class of a name in ASCII.
    pub(super) fn class(&self, name: &[u8]) -> Symbol {
        let end = name.iter().fold(self.start, |state, &byte| self.graph.step(state, u32::from(byte)));
        self.graph.states.get(end as usize).map_or(0, |vertex| vertex.value)
    }

    /// Returns the smallest automaton with other numbers for the classes, and its start.
    pub(super) fn renumbered(&self, numbers: &[Symbol]) -> (Graph, u32) {
        let mut graph = self.graph.clone();
        for vertex in &mut graph.states {
            vertex.value = numbers.get(vertex.value as usize).copied().unwrap_or(0);
        }
        let (small, place) = graph.minimised();
        (small, place.get(self.start as usize).copied().unwrap_or(0))
    }
}

/// Bytes that names are made of where any will do, the usual ones first.
fn usual_bytes() -> impl Iterator<Item = u8> {
    (b'a'..=b'z')
        .chain(b'0'..=b'9')
        .chain(b'A'..=b'Z')
        .chain(b'!'..=b'~')
        .chain(1..=0x7f)
        .filter(|&byte| byte != b'/')
}

/// Returns for each state a name that ends in it: the shortest but for `.` and `..`, which no path has.
fn witnesses(machine: &Machine<'_, Everything>) -> Vec<Option<Vec<u8>>> {
    let mut ways: Vec<Option<Vec<u8>>> = Vec::with_capacity(machine.states.len());
    for state in &machine.states {
        let way = match state.parent {
            None => Some(Vec::new()),
            Some((parent, by)) => longer(machine, &ways, parent, by),
        };
        ways.push(way);
    }
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
    let mut names: Vec<Option<Vec<u8>>> =
        ways.iter().map(|way| way.clone().filter(|way| is_name(way))).collect();
    for (at, state) in (0..).zip(&machine.states) {
        let Some(body) = machine.bodies.get(state.body as usize) else { continue };
        let steps =
            body.edges.iter().map(|&(symbol, next)| (Some(symbol), next)).chain([(None, body.fallback)]);
        for (by, next) in steps {
            let Some(slot @ None) = names.get_mut(next as usize) else { continue };
            *slot = longer(machine, &ways, at, by).filter(|name| is_name(name));
        }
    }
    names
}

fn longer(
    machine: &Machine<'_, Everything>,
    ways: &[Option<Vec<u8>>],
    parent: u32,
    by: Option<Symbol>,
) -> Option<Vec<u8>> {
    let body = machine.body(parent)?;
    let byte = match by {
        Some(symbol) => u8::try_from(symbol).ok()?,
        None => usual_bytes()
            .find(|&byte| body.edges.binary_search_by_key(&u32::from(byte), |edge| edge.0).is_err())?,
    };
    let mut way = ways.get(parent as usize)?.clone()?;
    way.push(byte);
    Some(way)
}
