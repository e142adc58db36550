//! A compiled policy as tables that the kernel's programs read: two automata and a word of verdicts for each place
//! where they can end.
//!
//! The format is that of `gait-ebpf`'s `layout`. Three steps lead to it: patterns of paths are taken apart into patterns
//! of names ([`split`]); both kinds become automata ([`nfa`], [`determinize`], [`minimise`], [`pack`]); and for each
//! region that the automaton over paths tells apart the rules are evaluated and the gate is asked ([`program`],
//! [`words`]).
//!
//! A table allows or blocks only what the gate allows or blocks for every path that ends there. Everything else is
//! [`verdict::HOLD`], and the gate itself is asked when it happens: what needs consent, what hangs on arguments, what
//! the tables do not hold. So a mistake of the patterns costs time and not safety, and a test holds that too.

mod determinize;
mod held;
mod interpret;
mod literals;
mod minimise;
mod names;
mod nfa;
mod pack;
mod program;
mod split;
mod words;

pub use held::{Held, Why};
pub use interpret::MAX_DEPTH;
pub use literals::Literal;

use determinize::{Everything, Machine, Pruning};
use minimise::{Graph, Vertex};
use names::Names;
use nfa::{Map, Symbol, index};
use pack::STRIDE;
use program::{Reachable, Rules};
use split::Splitter;
use words::{Judges, Region, Words};

use super::compile::CompiledPolicy;
use super::source::Origin;
use crate::action::{Action, Object};
use crate::gate::Decision;

/// What a word says about one operation; the numbers are those of `gait-ebpf`'s `layout::verdict`.
pub mod verdict {
    /// Allowed, and told.
    pub const ALLOW: u8 = 0;
    /// Allowed, and not told.
    pub const SILENT: u8 = 1;
    /// Left to the gate.
    pub const HOLD: u8 = 2;
    /// Blocked, and told.
    pub const BLOCK: u8 = 3;
}

/// How large tables may become.
#[derive(Debug, Clone, Copy)]
pub struct LowerOptions {
    /// States of each automaton before it is made small. Patterns may have four times as many parts.
    pub max_states: usize,
    /// Cells of the result, 8 bytes each.
    pub max_cells: usize,
}

impl Default for LowerOptions {
    fn default() -> Self {
        Self { max_states: 1 << 18, max_cells: 1 << 22 }
    }
}

/// A policy in tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// Both automata.
    pub cells: Vec<u64>,
    /// The verdicts: that of a region and a class of images is at `region * image_classes + class`.
    pub words: Vec<u64>,
    /// Start of the automaton over names.
    pub names: u32,
    /// Start of the automaton over paths.
    pub paths: u32,
    /// Start of the automaton over the paths of images. Class 0 is that of an image of which nothing is known.
    pub images: u32,
    /// How many classes of images there are.
    pub image_classes: u32,
    /// What patterns name literally, sorted by path.
    pub literals: Vec<Literal>,
    /// What is held, for people.
    pub held: Vec<Held>,
}

/// A policy cannot be put into tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: its patterns need more than {limit} {what} in the kernel; write fewer wildcards inside of names and fewer \
     `**` in the middle of patterns, or use another backend",
    place(.rule.as_ref())
)]
pub struct LowerError {
    /// The first rule with which it is too much; none where it already is with what is protected and hidden.
    pub rule: Option<(String, Origin)>,
    /// Of what there is too much.
    pub what: &'static str,
    /// How much there may be.
    pub limit: usize,
}

fn place(rule: Option<&(String, Origin)>) -> String {
    rule.map_or_else(|| "exec.protect".to_owned(), |(name, origin)| format!("{origin}: rule `{name}`"))
}

/// Which limit was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TooLarge {
    Patterns,
    States,
    Cells,
}

/// The rules that count: those with a smaller number.
#[derive(Debug, Clone, Copy)]
struct Part(usize);

impl Part {
    fn has(self, rule: u16) -> bool {
        usize::from(rule) < self.0
    }
}

impl CompiledPolicy {
    /// Decides about an action of a session that hides some paths: those are out of reach, the policy judges the rest.
    #[must_use]
    pub fn decide_hiding(&self, hidden: &[Vec<u8>], action: &Action<'_>) -> Decision {
        if let Object::Path(path) = action.object {
            let below = |hidden: &Vec<u8>| {
                path.strip_prefix(hidden.as_slice()).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
            };
            if hidden.iter().any(below) {
                return Decision::NEVER;
            }
        }
        self.decide(action)
    }

    /// Puts the policy into tables for the kernel. `hidden` is what the session hides besides.
    ///
    /// # Errors
    ///
    /// Fails if the tables would be larger than they may be.
    pub fn lower(&self, hidden: &[Vec<u8>], options: LowerOptions) -> Result<Lowered, LowerError> {
        let attempt = |rules| lower(self, hidden, options, Part(rules));
        let count = self.rules.len();
        attempt(count).map_err(|found| {
            // The rule to name is the first one that cannot be added any more.
            let (mut fits, mut fails) = (0, count);
            if attempt(0).is_err() {
                fails = 0;
            }
            while fails > fits + 1 {
                let middle = fits.midpoint(fails);
                *(if attempt(middle).is_ok() { &mut fits } else { &mut fails }) = middle;
            }
            let (what, limit) = match found {
                TooLarge::Patterns => ("parts of patterns", options.max_states.saturating_mul(4)),
                TooLarge::States => ("states", options.max_states),
                TooLarge::Cells => ("cells", options.max_cells),
            };
            let rule = fails.checked_sub(1).and_then(|last| self.policy().rules().get(last));
            LowerError { rule: rule.map(|rule| (rule.name.clone(), rule.origin.clone())), what, limit }
        })
    }
}

fn lower(
    policy: &CompiledPolicy,
    hidden: &[Vec<u8>],
    options: LowerOptions,
    part: Part,
) -> Result<Lowered, TooLarge> {
    let limit = options.max_states;
    let mut splitter = Splitter::new(limit.saturating_mul(4));
    let roots = (splitter.root(), splitter.root());
    let rules = Rules::collect(policy, hidden, part, roots, &mut splitter)?;
    let (nfa, roots, groups) = splitter.finish(&[roots.0, roots.1]);
    let names = Names::new(&groups, limit)?;
    let root = |at: usize| roots.get(at).copied().unwrap_or(0);

    let mut paths = Machine::new(&nfa, &names.members, Reachable(&rules), limit);
    let start = paths.start(root(0))?;
    paths.explore()?;
    let wanted = literals::wanted(policy, hidden, |rule| rules.uses_rule(rule));
    let located = literals::locate(wanted, &mut paths, start, &names, &groups)?;
    let mut images = Machine::new(&nfa, &names.members, Everything, limit);
    let image_start = images.start(root(1))?;
    images.explore()?;

    let (regions, region_of) = regions(&paths, &names, &located.ways);
    let (sets, set_of) = self::regions(&images, &names, &Map::default());
    let words = Judges { policy, hidden, rules: &rules }.words(&regions, &sets);
    let starts = (start, image_start);
    let tables = Tables { names: &names, words, literals: located.states, starts };
    tables.assemble(policy, (&paths, &region_of), (&images, &set_of), options)
}

/// The sets of labels that states have, each with a path, and which one each state has.
fn regions<P: Pruning>(
    machine: &Machine<'_, P>,
    names: &Names,
    ways: &Map<u32, Vec<u8>>,
) -> (Vec<Region>, Vec<u32>) {
    let mut known: Map<&[u32], u32> = Map::default();
    let (mut regions, mut numbers) = (Vec::new(), Vec::with_capacity(machine.states.len()));
    let witnesses = witnesses(machine, names, ways);
    for (state, witness) in machine.states.iter().zip(witnesses) {
        let next = index(regions.len());
        let number = *known.entry(&state.labels).or_insert(next);
        if number == next {
            regions.push(Region { labels: state.labels.clone(), witness: None });
        }
        if let Some(region) = regions.get_mut(number as usize)
            && region.witness.is_none()
        {
            region.witness = witness;
        }
        numbers.push(number);
    }
    (regions, numbers)
}

/// Returns for each state a path that ends in it; none where the names of a class are unknown or lead elsewhere.
///
/// `ways` are paths that are known already.
fn witnesses<P: Pruning>(
    machine: &Machine<'_, P>,
    names: &Names,
    ways: &Map<u32, Vec<u8>>,
) -> Vec<Option<Vec<u8>>> {
    let mut found: Vec<Option<Vec<u8>>> = Vec::with_capacity(machine.states.len());
    for (at, state) in (0..).zip(&machine.states) {
        let Some((parent, by)) = state.parent else {
            found.push(Some(b"/".to_vec()));
            continue;
        };
        if let Some(way) = ways.get(&at) {
            found.push(Some(way.clone()));
            continue;
        }
        let witness = || {
            let before = machine.body(parent)?;
            let has_edge = |class: &Symbol| before.edges.binary_search_by_key(class, |edge| edge.0).is_ok();
            let named = |class: &Symbol| names.witnesses.get(*class as usize).is_some_and(Option::is_some);
            let odd = |class: &Symbol| names.odd == Some(*class);
            let class = match by {
                Some(class) => class,
                None => (0..index(names.classes()))
                    .find(|class| !has_edge(class) && named(class) && !odd(class))?,
            };
            let name = names.witnesses.get(class as usize)?.as_deref()?;
            let leads = machine.step(parent, names.class(name)) == at;
            let parent = found.get(parent as usize)?.as_deref()?;
            let parent = parent.strip_suffix(b"/").unwrap_or(parent);
            leads.then(|| [parent, b"/", name].concat())
        };
        let witness = witness();
        found.push(witness);
    }
    found
}

/// Everything that tables are made of.
struct Tables<'a> {
    names: &'a Names,
    words: Words,
    /// With states of the automaton over paths; none where everything is held.
    literals: Vec<(Vec<u8>, Option<u32>)>,
    starts: (u32, u32),
}

impl Tables<'_> {
    fn assemble(
        self,
        policy: &CompiledPolicy,
        (paths, region_of): (&Machine<'_, impl Pruning>, &[u32]),
        (images, set_of): (&Machine<'_, impl Pruning>, &[u32]),
        options: LowerOptions,
    ) -> Result<Lowered, TooLarge> {
        let Self { names, words, literals, starts } = self;
        let of = |list: &[u32], at: &u32| list.get(*at as usize).copied().unwrap_or(0);
        // Where a path goes whose text is not its bytes, and an image with such a path.
        let mut graph = Graph { states: vec![Vertex::default(); 2] };
        let rows: Vec<u32> = region_of.iter().map(|at| of(&words.rows, at)).collect();
        let classes: Vec<u32> = set_of.iter().map(|at| of(&words.image_classes, at)).collect();
        let path_places = graph.add(paths, &rows, names.odd, (0, words.hold));
        let image_places = graph.add(images, &classes, names.odd, (1, 0));

        let (mut small, place) = graph.minimised();
        let (numbers, symbols) = small.merge_symbols(names.classes());
        let (names, name_start) = names.renumbered(&numbers);
        let number = |vertex: u32| of(&place, &vertex) * STRIDE;
        let cells = pack::pack(&[(&small, symbols), (&names, 256)], options.max_cells)?;
        let literals = literals
            .into_iter()
            .map(|(path, state)| Literal {
                path,
                state: number(state.map_or(0, |state| of(&path_places, &state))),
            })
            .collect();
        Ok(Lowered {
            cells,
            words: words.words,
            names: (index(small.states.len()) + name_start) * STRIDE,
            paths: number(of(&path_places, &starts.0)),
            images: number(of(&image_places, &starts.1)),
            image_classes: words.columns,
            literals,
            held: words.notes.list(policy.policy()),
        })
    }
}

impl Graph {
    /// Adds the states of a construction with their values. States that mean the same and go on alike are one.
    ///
    /// Names of the odd class lead to the sink, which is there already and gets its value.
    fn add(
        &mut self,
        machine: &Machine<'_, impl Pruning>,
        values: &[u32],
        odd: Option<Symbol>,
        (sink, value): (u32, u32),
    ) -> Vec<u32> {
        if let Some(vertex) = self.states.get_mut(sink as usize) {
            *vertex = Vertex { value, fallback: sink, edges: Vec::new() };
        }
        let first = index(self.states.len());
        let mut known: Map<(u32, u32), u32> = Map::default();
        let mut distinct = Vec::new();
        let mut places = Vec::with_capacity(machine.states.len());
        for (state, &value) in machine.states.iter().zip(values) {
            let next = first + index(distinct.len());
            let place = *known.entry((state.body, value)).or_insert(next);
            if place == next {
                distinct.push((state.body, value));
            }
            places.push(place);
        }
        let place = |state: u32| places.get(state as usize).copied().unwrap_or(sink);
        for (body, value) in distinct {
            let Some(body) = machine.bodies.get(body as usize) else { continue };
            let fallback = place(body.fallback);
            let edges = body.edges.iter().map(|&(class, next)| (class, place(next)));
            let mut edges: Vec<_> = edges.filter(|&(_, next)| next != fallback).collect();
            if let Some(odd) = odd {
                edges.push((odd, sink));
                edges.sort_unstable();
            }
            self.states.push(Vertex { value, fallback, edges });
        }
        places
    }
}
