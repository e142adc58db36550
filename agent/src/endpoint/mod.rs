//! The endpoint taxonomy: classes, operations, and the one table that maps kernel calls to them.

mod catalog;
mod class;
mod operation;

pub use catalog::{CATALOG, Preload, Row, Treatment};
pub use class::{EndpointClass, UnknownClass};
pub use operation::{Operation, TargetKind};
