//! Proof that the attached programs enforce: a task of a session that allows nothing cannot open a file.
//!
//! Attaching alone proves little: a kernel may take every program and never call one.

use gait_ebpf::layout::NO_EDGES;

use super::error::LoadError;
use super::load::Programs;
use super::session::Tables;
use crate::sys::Errno;
use crate::sys::process::{self, Opened};

/// One state that every text ends in, and a word that blocks every operation.
const CELLS: [u64; 2] = [NO_EDGES as u64, 0];
const WORDS: [u64; 1] = [u64::MAX];

pub(super) fn run(programs: &mut Programs) -> Result<(), LoadError> {
    let tables = Tables {
        holder: 0,
        cells: &CELLS,
        words: &WORDS,
        names: 0,
        paths: 0,
        images: 0,
        image_classes: 1,
        flags: 0,
        identities: &[],
    };
    let session = programs.open_session(&tables)?;
    let failed = |errno: Errno| LoadError::SelfTest { reason: format!("the probe cannot run: {errno}") };
    let opener = process::fork_opener(c"/").map_err(failed)?;
    let placed = programs.seed(&session, opener.pid(), 0);
    let mut ring = session.reader()?;
    let opened = opener.go().map_err(failed)?;
    placed?;
    let told = std::iter::from_fn(|| ring.next().map(<[u8]>::len)).count();
    drop(ring);
    programs.close_session(session)?;
    let reason = match (opened, told) {
        (Opened::No(Errno(libc::EACCES)), 1..) => return Ok(()),
        (Opened::No(Errno(libc::EACCES)), 0) => "a blocked open was not told".to_owned(),
        (Opened::No(errno), _) => format!("an open that is blocked failed with {errno}"),
        (Opened::Yes, _) => "an open that is blocked went through".to_owned(),
    };
    Err(LoadError::SelfTest { reason })
}
