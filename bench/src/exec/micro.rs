//! Start-up, and what one call costs more.

use std::ffi::OsString;

use crate::args::{ExecArgs, ProbeKind};
use crate::error::BenchError;
use crate::report::{Report, number};

use super::runner::{Pairs, Runner, WorkDir, spread_cell, turns};
use super::{add_table, head};

/// One row.
pub(crate) struct Row {
    name: &'static str,
    what: What,
}

enum What {
    /// A whole session of `true`, in milliseconds.
    StartUp,
    /// A probe and how many calls it makes, in nanoseconds per call.
    Probe(ProbeKind, usize),
}

pub(crate) const ROWS: [Row; 7] = [
    Row { name: "start_up", what: What::StartUp },
    Row { name: "open", what: What::Probe(ProbeKind::Open, 20_000) },
    Row { name: "stat", what: What::Probe(ProbeKind::Stat, 20_000) },
    Row { name: "create", what: What::Probe(ProbeKind::Create, 5_000) },
    Row { name: "unlink", what: What::Probe(ProbeKind::Unlink, 5_000) },
    Row { name: "exec", what: What::Probe(ProbeKind::Exec, 400) },
    // Few, because each leaves a port in TIME_WAIT.
    Row { name: "connect", what: What::Probe(ProbeKind::Connect, 1_000) },
];

impl Row {
    fn unit(&self) -> &'static str {
        match self.what {
            What::StartUp => "ms",
            What::Probe(..) => "ns",
        }
    }

    /// Returns the name of the number that this row reports.
    pub(crate) fn number(&self) -> String {
        format!("exec.{}.added_{}", self.name, self.unit())
    }
}

pub(crate) fn measure(
    args: &ExecArgs,
    runner: &Runner,
    work: &WorkDir,
    report: &mut Report,
) -> Result<(), BenchError> {
    let mut rows = head(&["call", "unit", "native [p25 to p75]", "gait exec [p25 to p75]", "added"]);
    for row in ROWS.iter().filter(|row| args.rows.wants(row.name)) {
        match gather(args, runner, work, row) {
            Ok(pairs) => {
                rows.push(vec![
                    row.name.to_owned(),
                    row.unit().to_owned(),
                    spread_cell(pairs.native()),
                    spread_cell(pairs.gait()),
                    number(pairs.added()),
                ]);
                report.numbers.insert(row.number(), pairs.added());
            }
            Err(error) => report.failures.push(format!("{}: {error}", row.name)),
        }
    }
    add_table(report, "one call (median chunk of 50, then the median of the rounds)", rows);
    Ok(())
}

fn gather(args: &ExecArgs, runner: &Runner, work: &WorkDir, row: &Row) -> Result<Pairs, BenchError> {
    let dir = work.make(row.name)?;
    let mut pairs = Pairs::default();
    match row.what {
        What::StartUp => {
            let argv = [OsString::from("/bin/true")];
            // Short, so more of them.
            for side in turns(args.rounds() * 5) {
                pairs.push(side, runner.run(side, &dir, &argv)?.wall.as_secs_f64() * 1e3);
            }
        }
        What::Probe(kind, n) => {
            let argv = runner.probe(kind, args.scaled(n));
            for (run, side) in turns(args.rounds()).enumerate() {
                // A directory per run: a probe does not clean up after itself.
                let inner = work.make(&format!("{}/{run}", row.name))?;
                pairs.push(side, runner.run(side, &inner, &argv)?.outcome()?.ns_per_call);
            }
        }
    }
    Ok(pairs)
}
