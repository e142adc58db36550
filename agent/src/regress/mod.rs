//! Regression: what a recorded run did, held against what a policy says of it now, or against what the same command
//! does now.
//!
//! [`Session`] turns the evidence of `gait exec` back into actions, [`Judge`] asks a policy about them, [`Behaviour`]
//! is what another run of the command must repeat, after [`normalise()`] took out what differs without meaning
//! anything. [`Review`] adds up what a change of policy would have done to many runs. The documents of the
//! contract (section 19) are [`Config`], [`Fixture`] and [`RegressResult`]. Nothing here runs a program or reads a
//! clock.

mod behaviour;
mod fixture;
mod judge;
mod junit;
mod normalise;
mod recorded;
mod result;
mod review;

pub use behaviour::{Behaviour, Difference, Endpoint, Ignored};
pub use fixture::{
    Config, ConfigEntry, ExecFixture, ExpectedDecision, Fixture, FixtureError, check_relative, fixture_name,
};
pub use judge::{Judge, Judgement};
pub use junit::{Case, Suite, junit};
pub use normalise::{Places, normalise};
pub use recorded::{Recorded, RecordedError, Session, unescaped};
pub use result::{Grader, RegressResult, Status};
pub use review::{Group, Review, RunReview};
