//! Evidence packs for people who were not there: a signed, deterministic zip that sums up one run and what lies around
//! it, with an index by the controls of an audit (contract §23).
//!
//! `gait guard pack` packs what is named, `gait incident pack` what lies beside the run and falls into its time; both
//! are checked by `gait guard verify`, offline. Nothing here reads a clock: times are those of the documents.

mod collect;
mod manifest;
mod template;
mod verify;
mod write;

pub use collect::{Collected, Sources, collect};
pub use manifest::{Control, Entry, Manifest, Pointer, Window};
pub use template::Template;
pub use verify::{PackReport, verify_pack};
pub use write::{Build, Built, PackError, build};
