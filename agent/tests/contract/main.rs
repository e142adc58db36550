//! The primitive contract: schemas, fixtures, the normative page and the lock, all held to the Rust types.
//!
//! One table, [`artefacts::ARTEFACTS`], describes every document; its module says how to add one. From it come the JSON
//! Schemas under `docs/contracts/schemas/v1/`, the tables of `docs/contracts/primitive_contract.md` and the lock
//! `docs/contracts/primitive_contract.lock.json`. It is a table and no derive, because the types that read are more
//! tolerant than the documents that may be written (defaults, folded case, unknown fields), and the contract is about
//! the latter; that no field is missing or invented is asked of the types themselves ([`names`]).
//!
//! `GAIT_BLESS=1 cargo test -p gait-agent --test contract` writes schemas and tables anew. It writes the lock only where
//! the change is one that the contract allows; see [`lock`].

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot read its own workspace must fail loudly"
)]

mod artefacts;
mod fixtures;
mod lock;
mod names;
mod page;
mod schemas;
mod shape;

use std::path::{Path, PathBuf};

/// A place in the repository.
pub(crate) fn place(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(relative)
}

/// Whether generated files are to be written anew.
pub(crate) fn bless() -> bool {
    std::env::var_os("GAIT_BLESS").is_some()
}

/// Holds a committed file equal to what it is made from, or writes it.
pub(crate) fn hold(relative: &str, made: &str) {
    let path = place(relative);
    if bless() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == made,
        "{relative} is not what the table says: GAIT_BLESS=1 cargo test -p gait-agent --test contract"
    );
}
