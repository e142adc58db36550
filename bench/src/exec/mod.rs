//! Programs under `gait exec` against the same programs without it.
//!
//! Every round runs both sides, in turn first and second, in the same directory; a row reports the median and the
//! quartiles of each side and the median of the rounds' differences or ratios, so that a host that drifts between two
//! speeds does not favour one side.

mod evidence;
mod micro;
mod runner;
mod workloads;

use crate::args::ExecArgs;
use crate::budget;
use crate::error::BenchError;
use crate::report::{Host, Report, Table};

use self::runner::{Runner, WorkDir};

/// Measures everything that was asked for. A row that fails is reported as such and does not end the others.
pub(crate) fn measure(args: &ExecArgs) -> Result<Report, BenchError> {
    let mut report = Report::new("exec", Host::here(), args.report.quick);
    let runner = Runner::new(args)?;
    let work = WorkDir::new()?;
    micro::measure(args, &runner, &work, &mut report)?;
    workloads::measure(args, &runner, &work, &mut report)?;
    evidence::measure(args, &runner, &work, &mut report)?;
    if report.tables.is_empty() && report.failures.is_empty() {
        return Err(BenchError::Missing("no row of that name".to_owned()));
    }
    report.judge(&budget::load()?);
    Ok(report)
}

/// The names of all numbers that a full run reports.
#[cfg(test)]
pub(crate) fn row_ids() -> Vec<String> {
    let micro = micro::ROWS.iter().map(|row| row.number());
    let workloads = workloads::ROWS.iter().map(|row| row.number());
    micro.chain(workloads).chain(evidence::NUMBERS.iter().map(|id| (*id).to_owned())).collect()
}

/// Adds a table unless it has a head only.
fn add_table(report: &mut Report, title: &str, rows: Vec<Vec<String>>) {
    if rows.len() > 1 {
        report.tables.push(Table { title: title.to_owned(), rows });
    }
}

fn head(cells: &[&str]) -> Vec<Vec<String>> {
    vec![cells.iter().map(|cell| (*cell).to_owned()).collect()]
}
