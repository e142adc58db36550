//! Identifiers and versions of every document that gait reads or writes, in one place.

/// The version of every schema of this generation.
pub const VERSION: &str = "1.0.0";

/// The producer version that gait puts into documents.
pub const PRODUCER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A request to judge one action.
pub const INTENT_REQUEST: &str = "gait.gate.intent_request";
/// A policy.
pub const POLICY: &str = "gait.gate.policy";
/// What the gate said.
pub const GATE_RESULT: &str = "gait.gate.result";
/// A signed record of one decision.
pub const TRACE: &str = "gait.gate.trace";
/// The manifest of a runpack.
pub const RUNPACK_MANIFEST: &str = "gait.runpack.manifest";
/// The run of a runpack.
pub const RUNPACK_RUN: &str = "gait.runpack.run";
/// One intent of a runpack.
pub const RUNPACK_INTENT: &str = "gait.runpack.intent";
/// One result of a runpack.
pub const RUNPACK_RESULT: &str = "gait.runpack.result";
/// The references of a runpack.
pub const RUNPACK_REFS: &str = "gait.runpack.refs";
/// What reducing a run left out.
pub const REDUCE_REPORT: &str = "gait.runpack.reduce_report";
/// The journal of a session.
pub const JOURNAL: &str = "gait.exec.journal";
/// What a backend enforced during a session.
pub const COVERAGE: &str = "gait.exec.coverage";
/// The fingerprint of one run.
pub const RUN_FINGERPRINT: &str = "gait.scout.run_fingerprint";
/// Families of runs, ranked.
pub const SIGNAL_REPORT: &str = "gait.scout.signal_report";
/// The fixtures of a regression suite.
pub const REGRESS_CONFIG: &str = "gait.regress.config";
/// One fixture.
pub const REGRESS_FIXTURE: &str = "gait.regress.fixture";
/// What the graders said.
pub const REGRESS_RESULT: &str = "gait.regress.result";
/// What a change of policy would have done to recorded runs.
pub const REGRESS_REVIEW: &str = "gait.regress.review";
/// What tools and policies a directory holds.
pub const INVENTORY_SNAPSHOT: &str = "gait.scout.inventory_snapshot";
/// The actions that can do most harm.
pub const TOP_ACTIONS: &str = "gait.report.top_actions";
