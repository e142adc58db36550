//! One session: from a prepared plan to the sealed runpack.
//!
//! [`run`](session::run) is called by `cli::exec`. The guard's loop is in `session`, what it writes in `evidence`, what the
//! other processes tell it in `event` (judged actions) and `status` (the state of the tree).

pub(crate) mod command;
pub(crate) mod coverage;
pub(crate) mod environment;
pub(crate) mod event;
pub(crate) mod evidence;
pub(crate) mod reaper;
pub(crate) mod session;
pub(crate) mod status;
