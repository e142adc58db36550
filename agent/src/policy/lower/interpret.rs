//! What the kernel's programs do with the tables, in Rust: the tests' yardstick, and what `gait doctor` can ask.

use super::{Lowered, verdict};
use crate::endpoint::Operation;

/// Components beyond which the kernel blocks.
pub const MAX_DEPTH: usize = 64;

/// Where a path ends.
enum End {
    State(u32),
    Hold,
    Block,
}

impl Lowered {
    /// Returns the verdict on an absolute path, of [`verdict`].
    #[must_use]
    pub fn verdict(&self, path: &[u8], image: &[u8], operation: Operation) -> u8 {
        self.verdict_below(self.paths, path, image, operation)
    }

    /// Returns the verdict on what lies below a state: that of a literal, and the rest of a path.
    #[must_use]
    pub fn verdict_below(&self, state: u32, rest: &[u8], image: &[u8], operation: Operation) -> u8 {
        let region = match self.run(state, rest) {
            End::State(state) => self.value(state),
            End::Hold => return verdict::HOLD,
            End::Block => return verdict::BLOCK,
        };
        let word = region
            .checked_mul(self.image_classes)
            .and_then(|row| row.checked_add(self.image_class(image)))
            .and_then(|at| self.words.get(at as usize));
        word.map_or(verdict::BLOCK, |word| (word >> (2 * operation as u8)) as u8 & 3)
    }

    /// Returns the class of an image; 0 where it is not known or no plain text.
    #[must_use]
    pub fn image_class(&self, image: &[u8]) -> u32 {
        if image.is_empty() {
            return 0;
        }
        match self.run(self.images, image) {
            End::State(state) => self.value(state),
            End::Hold | End::Block => 0,
        }
    }

    /// Returns the state after a path, if it can be told; for directories that no rule names.
    #[must_use]
    pub fn state_after(&self, path: &[u8]) -> Option<u32> {
        match self.run(self.paths, path) {
            End::State(state) => Some(state),
            End::Hold | End::Block => None,
        }
    }

    fn run(&self, mut state: u32, path: &[u8]) -> End {
        let components = || path.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
        if components().count() > MAX_DEPTH {
            return End::Block;
        }
        if !path.is_ascii() {
            return End::Hold;
        }
        for component in components() {
            let end = component.iter().fold(self.names, |at, &byte| self.step(at, u32::from(byte)));
            state = self.step(state, self.value(end));
        }
        End::State(state)
    }

    fn half(&self, at: u64, high: bool) -> Option<u32> {
        let cell = *self.cells.get(usize::try_from(at).ok()?)?;
        Some(if high { (cell >> 32) as u32 } else { cell as u32 })
    }

    /// A state out of range stays so, and its value is no region.
    fn step(&self, state: u32, symbol: u32) -> u32 {
        let step = || {
            let base = self.half(u64::from(state), false)?;
            let at = u64::from(base) + u64::from(symbol);
            self.half(u64::from(state), true)
                .zip(self.half(at, false))
                .map(|(fallback, check)| if check == state { self.half(at, true) } else { Some(fallback) })?
        };
        step().unwrap_or(u32::MAX)
    }

    fn value(&self, state: u32) -> u32 {
        self.half(u64::from(state) + 1, false).unwrap_or(u32::MAX)
    }
}
