//! The tables of a session as a guard sends them: a file in memory, read once and checked before the kernel gets it.
//!
//! The kernel programs check every step themselves and block where a table leads out of itself. What is checked here is
//! therefore not what keeps other sessions safe; it gives a mistake a name before anything runs under it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use gait_ebpf::layout::{self, NO_EDGES, session_flags};

use super::protocol::Shape;
use crate::backend::ebpf::{NAMED_MAX, NamedPath, Tables};
use crate::sys::packets;

/// Cells that one session may have: 32 MiB.
const CELLS_MAX: u32 = 1 << 22;
/// Words that one session may have: 8 MiB.
const WORDS_MAX: u32 = 1 << 20;
/// Named places that one session may have.
const PLACES_MAX: u32 = NAMED_MAX as u32;
/// Bytes of a cell, and of a word.
const CELL_BYTES: usize = 8;
/// Bytes of a named place: descriptor, state, name.
const PLACE_BYTES: usize = 12;
/// The last byte that is classified.
const LAST_BYTE: u32 = 0x7f;
/// What a guard may ask for; that the session lives is the daemon's to say.
const FLAGS: u32 = session_flags::SIMULATE | session_flags::MMAP_EXEC;

/// What is wrong with the tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    /// Made for other programs.
    #[error("the tables are of layout {0}, the programs of layout {ours}", ours = layout::VERSION)]
    Layout(u32),
    /// An unknown flag.
    #[error("the flags {0:#x} are not known")]
    Flags(u32),
    /// More than one session may have.
    #[error("{count} {what} are more than the {most} that one session may have")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u32,
        /// How many there may be.
        most: u32,
    },
    /// Not a sealed file.
    #[error("the tables are not a sealed file in memory")]
    NotSealed,
    /// Longer or shorter than said.
    #[error("the file of the tables has not the length that was said")]
    Length,
    /// A state that is none.
    #[error("state {0} is not within the tables")]
    State(u32),
    /// A state whose edges do not all lie in the tables.
    #[error("the edges of state {0} are not within the tables")]
    Edges(u32),
    /// A state that says what does not exist.
    #[error("state {state} leads to {what} {value}, of which there are {count}")]
    Value {
        /// Which state.
        state: u32,
        /// What it leads to.
        what: &'static str,
        /// Its number.
        value: u32,
        /// How many there are.
        count: u32,
    },
}

/// The tables of one session.
#[derive(Debug)]
pub(crate) struct Owned {
    cells: Vec<u64>,
    words: Vec<u64>,
    places: Vec<NamedPath>,
    shape: Shape,
}

/// Bytes of the file that a shape describes, if it may be that large.
pub(crate) fn bytes_of(shape: &Shape) -> Result<usize, TableError> {
    if shape.layout != layout::VERSION {
        return Err(TableError::Layout(shape.layout));
    }
    if shape.flags & !FLAGS != 0 {
        return Err(TableError::Flags(shape.flags));
    }
    let within = |what, count, most| {
        let fits = usize::try_from(count).ok().filter(|_| count <= most);
        fits.ok_or(TableError::TooMany { what, count, most })
    };
    let cells = within("cells", shape.cells, CELLS_MAX)?;
    let words = within("words", shape.words, WORDS_MAX)?;
    let places = within("places", shape.places, PLACES_MAX)?;
    Ok((cells + words) * CELL_BYTES + places * PLACE_BYTES)
}

/// Writes tables as a sealed file, and says what is in it.
pub(crate) fn send(tables: &Tables<'_>) -> std::io::Result<(Shape, OwnedFd)> {
    let length =
        (tables.cells.len() + tables.words.len()) * CELL_BYTES + tables.identities.len() * PLACE_BYTES;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(tables.cells.iter().chain(tables.words).flat_map(|cell| cell.to_le_bytes()));
    for place in tables.identities {
        bytes.extend_from_slice(&place.descriptor.to_le_bytes());
        bytes.extend_from_slice(&place.state.to_le_bytes());
        bytes.extend_from_slice(&place.name.to_le_bytes());
    }
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let shape = Shape {
        layout: layout::VERSION,
        flags: tables.flags & FLAGS,
        names: tables.names,
        paths: tables.paths,
        images: tables.images,
        image_classes: tables.image_classes,
        cells: count(tables.cells.len()),
        words: count(tables.words.len()),
        places: count(tables.identities.len()),
    };
    Ok((shape, packets::sealed("gait-tables", &bytes)?))
}

impl Owned {
    /// Reads and checks the tables. `bytes` is what [`bytes_of`] said of the shape.
    ///
    /// # Errors
    /// They are not as the shape says, or lead out of themselves.
    pub(crate) fn read(shape: &Shape, bytes: usize, file: OwnedFd) -> Result<Self, TableError> {
        if !packets::is_sealed(file.as_fd()) {
            return Err(TableError::NotSealed);
        }
        let file = File::from(file);
        if file.metadata().ok().is_none_or(|file| file.len() != bytes as u64) {
            return Err(TableError::Length);
        }
        let mut content = vec![0; bytes];
        // Not from where the file stands: the sender shares that.
        file.read_exact_at(&mut content, 0).map_err(|_error| TableError::Length)?;
        Self::parse(shape, &content).ok_or(TableError::Length)?.checked()
    }

    fn parse(shape: &Shape, content: &[u8]) -> Option<Self> {
        let count = |number: u32| usize::try_from(number).ok();
        let cells = count(shape.cells)?.checked_mul(CELL_BYTES)?;
        let words = count(shape.words)?.checked_mul(CELL_BYTES)?;
        let (cells, rest) = content.split_at_checked(cells)?;
        let (words, places) = rest.split_at_checked(words)?;
        let numbers =
            |bytes: &[u8]| bytes.as_chunks().0.iter().map(|cell| u64::from_le_bytes(*cell)).collect();
        Some(Self {
            cells: numbers(cells),
            words: numbers(words),
            places: places.chunks(PLACE_BYTES).map(place).collect::<Option<_>>()?,
            shape: *shape,
        })
    }

    fn checked(self) -> Result<Self, TableError> {
        let shape = &self.shape;
        let edges = Edges::of(&self.cells);
        let mut last_class = 0;
        edges.reach(&self.cells, &[shape.names], LAST_BYTE, |_, class| {
            last_class = last_class.max(class);
            Ok(())
        })?;
        let below = |what, state, value, count| {
            if value < count { Ok(()) } else { Err(TableError::Value { state, what, value, count }) }
        };
        let classes = shape.image_classes;
        let regions = shape.words.checked_div(classes).unwrap_or(0);
        let mut starts = vec![shape.paths];
        starts.extend(self.places.iter().map(|place| place.state));
        edges.reach(&self.cells, &starts, last_class, |state, region| {
            below("region", state, region, regions)
        })?;
        edges.reach(&self.cells, &[shape.images], last_class, |state, class| {
            below("class", state, class, classes)
        })?;
        Ok(self)
    }

    /// Returns them as the programs' owner takes them. `holder` has the named places open: the process that sent the tables.
    pub(crate) fn tables(&self, holder: u32) -> Tables<'_> {
        Tables {
            cells: &self.cells,
            words: &self.words,
            names: self.shape.names,
            paths: self.shape.paths,
            images: self.shape.images,
            image_classes: self.shape.image_classes,
            flags: self.shape.flags,
            identities: &self.places,
            holder,
        }
    }
}

fn place(bytes: &[u8]) -> Option<NamedPath> {
    let (descriptor, rest) = bytes.split_first_chunk()?;
    let (state, rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_first_chunk()?;
    rest.is_empty().then_some(NamedPath {
        descriptor: u32::from_le_bytes(*descriptor),
        state: u32::from_le_bytes(*state),
        name: u32::from_le_bytes(*name),
    })
}

/// The two halves of a cell.
fn halves(cell: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = cell.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// Which cells are edges of which state: chains through the cells, so that all of it costs what the tables are long.
struct Edges {
    first: Vec<u32>,
    next: Vec<u32>,
}

/// The end of a chain.
const NONE: u32 = u32::MAX;

impl Edges {
    fn of(cells: &[u64]) -> Self {
        let mut edges = Self { first: vec![NONE; cells.len()], next: vec![NONE; cells.len()] };
        for (number, cell) in (0..).zip(cells) {
            let Ok(state) = usize::try_from(halves(*cell).0) else { continue };
            let Some(first) = edges.first.get_mut(state) else { continue };
            if let Some(next) = edges.next.get_mut(number as usize) {
                *next = std::mem::replace(first, number);
            }
        }
        edges
    }

    /// Goes through every state that the programs can come to, by symbols up to `last`, and gives `accept` what it says.
    fn reach(
        &self,
        cells: &[u64],
        starts: &[u32],
        last: u32,
        mut accept: impl FnMut(u32, u32) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        let at = |number: u32| usize::try_from(number).ok().and_then(|at| cells.get(at).copied());
        let mut seen = vec![false; cells.len()];
        let mut open = starts.to_vec();
        while let Some(state) = open.pop() {
            let value = state.checked_add(1).and_then(at).ok_or(TableError::State(state))?;
            let (Some(head), Some(seen)) = (at(state), seen.get_mut(state as usize)) else {
                return Err(TableError::State(state));
            };
            if std::mem::replace(seen, true) {
                continue;
            }
            accept(state, halves(value).0)?;
            let (base, fallback) = halves(head);
            open.push(fallback);
            if base == NO_EDGES {
                continue;
            }
            let end = base.checked_add(last).filter(|end| at(*end).is_some());
            let end = end.ok_or(TableError::Edges(state))?;
            let mut edge = self.first.get(state as usize).copied().unwrap_or(NONE);
            while let Some(cell) = at(edge) {
                if (base..=end).contains(&edge) {
                    open.push(halves(cell).1);
                }
                edge = self.next.get(edge as usize).copied().unwrap_or(NONE);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gait_agent::intent::SessionFacts;
    use gait_agent::policy::LowerOptions;

    use super::*;
    use crate::session_config::{self, PolicyChoice};

    /// Sends tables to oneself.
    fn through(tables: &Tables<'_>) -> Result<Owned, TableError> {
        let (shape, file) = send(tables).unwrap();
        Owned::read(&shape, bytes_of(&shape)?, file)
    }

    /// Every policy that comes with gait passes, and arrives as it was sent.
    #[test]
    fn the_tables_of_shipped_policies_are_in_order() {
        let facts = SessionFacts {
            identity: "uid:1000".to_owned(),
            workspace: "/home/user/work".to_owned(),
            run_id: "run_test".to_owned(),
        };
        for name in ["coding-agent", "ci", "locked-down", "secrets", "observe", "persistence", "sockets"] {
            let out_dir = Path::new("/home/user/work/gait-out");
            let policy = session_config::load(&PolicyChoice { name, facts: &facts, out_dir }).unwrap();
            let rules = policy.lower(&[b"/home/user/.key".to_vec()], LowerOptions::default()).unwrap();
            let literals = (0..).zip(&rules.literals);
            let identities: Vec<NamedPath> = literals
                .map(|(name, literal)| NamedPath { descriptor: 9, state: literal.state, name })
                .collect();
            let tables = Tables {
                holder: 7,
                cells: &rules.cells,
                words: &rules.words,
                names: rules.names,
                paths: rules.paths,
                images: rules.images,
                image_classes: rules.image_classes,
                flags: session_flags::MMAP_EXEC,
                identities: &identities,
            };
            let arrived = through(&tables).unwrap_or_else(|error| panic!("{name}: {error}"));
            let arrived = arrived.tables(8);
            assert_eq!(arrived.holder, 8, "whoever sent them, whatever they say");
            assert_eq!((arrived.cells, arrived.words), (tables.cells, tables.words), "{name}");
            assert_eq!(arrived.identities, tables.identities, "{name}");
            assert_eq!((arrived.flags, arrived.images), (tables.flags, tables.images), "{name}");
        }
    }

    /// Whatever is in the cells: the check ends, and where it says yes, a walk by any symbols stays inside.
    #[test]
    fn what_passes_does_not_lead_out() {
        let mut seed = 1u64;
        let mut dice = move |below: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u32::try_from(seed >> 33).unwrap() % below
        };
        let mut passed = 0;
        for _ in 0..20_000 {
            let count = 130 + dice(60);
            let cell = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
            let mut cells = vec![cell(u32::MAX, 0); count as usize];
            // Four states, and edges between them; now and then something that is none of these.
            for state in 0..4 {
                let base = if dice(2) == 0 { NO_EDGES } else { 8 + dice(60) };
                let next = if dice(20) == 0 { dice(2 * count) } else { 2 * dice(4) };
                cells[2 * state] = cell(base, next);
                cells[2 * state + 1] = cell(dice(3), 0);
            }
            for _ in 0..dice(30) {
                let at = dice(count) as usize;
                let next = if dice(20) == 0 { dice(2 * count) } else { 2 * dice(4) };
                cells[at] = cell(2 * dice(4), next);
            }
            let words = [0; 4];
            let tables = Tables {
                holder: 7,
                cells: &cells,
                words: &words,
                names: 2 * dice(4),
                paths: 2 * dice(4),
                images: 2 * dice(4),
                image_classes: 1 + dice(2),
                flags: 0,
                identities: &[],
            };
            let shape = send(&tables).unwrap().0;
            let owned = Owned { cells: cells.clone(), words: words.to_vec(), places: Vec::new(), shape };
            if owned.checked().is_err() {
                continue;
            }
            passed += 1;
            let mut state = tables.names;
            for _ in 0..200 {
                let (base, fallback) = halves(cells[state as usize]);
                let _value = cells[state as usize + 1];
                state = if base == NO_EDGES {
                    fallback
                } else {
                    let (check, next) = halves(cells[base as usize + dice(LAST_BYTE + 1) as usize]);
                    if check == state { next } else { fallback }
                };
            }
        }
        assert!((500..19_500).contains(&passed), "only {passed} passed, which shows little");
    }
}
