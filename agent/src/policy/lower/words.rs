//! From regions and images to words of verdicts.
//!
//! What the rules say in three values is one opinion. The gate's own, asked about a path of the region, is the other,
//! and a word decides only where both agree.

use super::super::compile::CompiledPolicy;
use super::super::model::ReadEvidence;
use super::held::{Notes, Why};
use super::nfa::{Label, Map, index};
use super::program::{Group, Outcome, Rules};
use super::verdict;
use crate::action::{Action, Object};
use crate::endpoint::Operation;
use crate::gate::Verdict;

/// A word in which everything is held.
pub(super) const HOLD_ALL: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// A set of labels that some path has, and such a path.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) labels: Vec<Label>,
    pub(super) witness: Option<Vec<u8>>,
}

/// Words and what they are numbered by.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) words: Vec<u64>,
    /// The row of each region.
    pub(super) rows: Vec<u32>,
    /// The row in which everything is held.
    pub(super) hold: u32,
    /// The class of each set of image labels; class 0 is that nothing is known of the image.
    pub(super) image_classes: Vec<u32>,
    pub(super) columns: u32,
    pub(super) notes: Notes,
}

/// Words of one group of operations for each class of images, by the labels that the group asks for.
type Known = Map<Vec<Label>, Vec<u64>>;

/// Whom to ask.
#[derive(Debug)]
pub(super) struct Judges<'a> {
    pub(super) policy: &'a CompiledPolicy,
    pub(super) hidden: &'a [Vec<u8>],
    pub(super) rules: &'a Rules<'a>,
}

impl Judges<'_> {
    /// Fills the words in, and drops rows and columns that are there already.
    pub(super) fn words(&self, regions: &[Region], images: &[Region]) -> Words {
        let mut notes = Notes::default();
        let mut known = vec![Map::default(); self.rules.groups.len()];
        let mut matrix: Vec<Vec<u64>> =
            regions.iter().map(|region| self.row(region, images, &mut known, &mut notes)).collect();
        matrix.push(vec![HOLD_ALL; images.len() + 1]);
        let (columns, kept) = self::columns(&matrix, images.len() + 1);
        let mut words = Vec::new();
        let mut known: Map<Vec<u64>, u32> = Map::default();
        let mut rows = Vec::with_capacity(matrix.len());
        for row in &matrix {
            let row: Vec<u64> = kept.iter().filter_map(|&column| row.get(column).copied()).collect();
            let next = index(known.len());
            let number = known.get(&row).copied().unwrap_or(next);
            if number == next {
                words.extend_from_slice(&row);
                known.insert(row, next);
            }
            rows.push(number);
        }
        let hold = rows.pop().unwrap_or(0);
        let image_classes = columns.into_iter().skip(1).collect();
        Words { words, rows, hold, image_classes, columns: index(kept.len()), notes }
    }

    /// The words of one region. What a group of operations sees of it may have been seen in another region.
    fn row(&self, region: &Region, images: &[Region], known: &mut [Known], notes: &mut Notes) -> Vec<u64> {
        let mut row = vec![HOLD_ALL; images.len() + 1];
        for (group, known) in self.rules.groups.iter().zip(known) {
            let labels = self.rules.relevant(&region.labels, group);
            let column = match known.get(&labels) {
                Some(column) => column.clone(),
                None => {
                    let seen = Region { labels: labels.clone(), witness: region.witness.clone() };
                    let column = self.by_image(&seen, group, images, notes);
                    // Without a path to ask about nothing was found out; another region may have one.
                    if seen.witness.is_some() {
                        known.insert(labels, column.clone());
                    }
                    column
                }
            };
            let mask = group.operations.iter().fold(0, |mask, &operation| mask | 3 << (2 * operation as u8));
            for (slot, word) in row.iter_mut().zip(column) {
                *slot = (*slot & !mask) | (word & mask);
            }
        }
        row
    }

    /// The verdicts of one group of operations for each class of images, that of unknown ones first.
    fn by_image(&self, region: &Region, group: &Group, images: &[Region], notes: &mut Notes) -> Vec<u64> {
        let unknown = self.rules.evaluate(&region.labels, group, None);
        // That an image is not known is no news; what follows for known ones is.
        let quiet = &mut Notes::default();
        let first = if unknown.by_image { quiet } else { &mut *notes };
        let word = self.column(region, group, &unknown, Some(b""), first);
        let mut words = vec![word; images.len() + 1];
        if unknown.by_image {
            for (slot, image) in words.iter_mut().skip(1).zip(images) {
                let outcome = self.rules.evaluate(&region.labels, group, Some(&image.labels));
                *slot = self.column(region, group, &outcome, image.witness.as_deref(), notes);
            }
        }
        words
    }

    /// The verdicts of one group of operations.
    fn column(
        &self,
        region: &Region,
        group: &Group,
        outcome: &Outcome,
        image: Option<&[u8]>,
        notes: &mut Notes,
    ) -> u64 {
        let mut word = 0;
        let mut agreed = None;
        for &operation in &group.operations {
            let verdict = match (agreed, outcome.by_operation) {
                (Some(verdict), false) => verdict,
                _ => {
                    let verdict = self.verdict(region, operation, outcome, image);
                    agreed = Some(verdict);
                    verdict
                }
            };
            let value = match verdict {
                Ok(Verdict::Block) => verdict::BLOCK,
                Ok(_) if self.is_silent(operation) => verdict::SILENT,
                Ok(_) => verdict::ALLOW,
                Err((rule, why)) => {
                    notes.add(rule, why, operation);
                    verdict::HOLD
                }
            };
            word |= u64::from(value) << (2 * operation as u8);
        }
        word
    }

    fn is_silent(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Read | Operation::List)
            && self.policy.exec().reads == ReadEvidence::Off
    }

    fn verdict(
        &self,
        region: &Region,
        operation: Operation,
        outcome: &Outcome,
        image: Option<&[u8]>,
    ) -> Result<Verdict, (Option<usize>, Why)> {
        let said = outcome.verdict()?;
        let (Some(path), Some(image)) = (region.witness.as_deref(), image) else {
            return Err((None, Why::NoWitness));
        };
        let argv = (operation == Operation::Exec).then_some(&b"x\0"[..]);
        let action = Action { operation, object: Object::Path(path), image, argv };
        match self.policy.decide_hiding(self.hidden, &action).verdict() {
            asked if !outcome.by_operation && asked != said => Err((None, Why::Doubt)),
            asked @ (Verdict::Allow | Verdict::Block) => Ok(asked),
            _ => Err((None, Why::Constraint)),
        }
    }
}

/// Returns the class of each column, and the columns that are kept.
fn columns(matrix: &[Vec<u64>], count: usize) -> (Vec<u32>, Vec<usize>) {
    let mut known: Map<Vec<u64>, u32> = Map::default();
    let (mut classes, mut kept) = (Vec::with_capacity(count), Vec::new());
    for at in 0..count {
        let column: Vec<u64> = matrix.iter().filter_map(|row| row.get(at).copied()).collect();
        let next = index(known.len());
        let class = *known.entry(column).or_insert(next);
        if class == next {
            kept.push(at);
        }
        classes.push(class);
    }
    (classes, kept)
}
