//! The report of a benchmark, as text and as JSON.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::budget::{self, Budgets, Judgement};
use crate::error::BenchError;

/// A table of measured rows, what of it is judged by a budget, and what could not be measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) bench: &'static str,
    pub(crate) host: Host,
    pub(crate) quick: bool,
    pub(crate) tables: Vec<Table>,
    /// Every judged or merely reported number by name.
    pub(crate) numbers: BTreeMap<String, f64>,
    pub(crate) budgets: Vec<Judgement>,
    /// Rows that could not be measured, with the reason. Never empty silently: the run fails.
    pub(crate) failures: Vec<String>,
}

/// What the numbers were measured on.
#[derive(Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) kernel: String,
    pub(crate) cpus: usize,
    /// Runnable processes over the last minute, before the benchmark: what else the host was doing.
    pub(crate) load: String,
}

/// One table of text cells; the first row is the head.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Host {
    pub(crate) fn here() -> Self {
        let first_word = |path: &str| {
            let text = fs::read_to_string(path).ok()?;
            text.split_whitespace().next().map(str::to_owned)
        };
        Self {
            kernel: first_word("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            load: first_word("/proc/loadavg").unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

impl Report {
    pub(crate) fn new(bench: &'static str, host: Host, quick: bool) -> Self {
        Self {
            bench,
            host,
            quick,
            tables: Vec::new(),
            numbers: BTreeMap::new(),
            budgets: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Judges the numbers gathered so far.
    pub(crate) fn judge(&mut self, budgets: &Budgets) {
        self.budgets = budget::judge(budgets, &self.numbers);
    }

    /// Returns how many budgets were missed.
    pub(crate) fn misses(&self) -> usize {
        self.budgets.iter().filter(|b| !b.met).count()
    }

    /// Returns the report as one JSON document.
    pub(crate) fn to_json(&self) -> Result<String, BenchError> {
        serde_json::to_string_pretty(self).map_err(|e| BenchError::json("report", e))
    }

    /// Returns the report as text.
    pub(crate) fn to_text(&self) -> String {
        let mut out = format!(
            "gait-bench {}: Linux {}, {} CPUs, load before {}",
            self.bench, self.host.kernel, self.host.cpus, self.host.load
        );
        if self.quick {
            out.push_str("\n--quick: a smoke test; the numbers mean little");
        }
        for table in &self.tables {
            section(&mut out, &table.title, &table.rows);
        }
        if !self.budgets.is_empty() {
            let mut rows = vec![["number", "measured", "budget", "", "for"].map(str::to_owned).to_vec()];
            rows.extend(self.budgets.iter().map(|b| {
                let outcome = if b.met { "met" } else { "MISSED" };
                vec![b.id.clone(), number(b.value), number(b.max), outcome.to_owned(), b.why.clone()]
            }));
            section(&mut out, "budgets", &rows);
        }
        for failure in &self.failures {
            out.push_str("\nFAILED ");
            out.push_str(failure);
        }
        out
    }
}

/// Returns a number with as many digits as are worth reading.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn section(out: &mut String, title: &str, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    out.push_str("\n\n");
    out.push_str(title);
    for row in rows {
        out.push_str("\n  ");
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        out.push_str(line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new("exec", Host { kernel: "6.18".into(), cpus: 2, load: "0.10".into() }, false)
    }

    #[test]
    fn a_miss_is_counted_and_said() {
        let mut report = report();
        report.numbers.insert("exec.open.added_ns".into(), 12000.5);
        report.judge(&budget::load().unwrap());
        assert_eq!(report.misses(), 1);
        assert!(report.to_text().contains("MISSED"), "{}", report.to_text());
    }

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let mut report = report();
        let rows = vec![vec!["row".into(), "x".into()], vec!["a longer row".into(), "y".into()]];
        report.tables.push(Table { title: "t".into(), rows });
        let text = report.to_text();
        assert!(text.ends_with("t\n  row           x\n  a longer row  y"), "{text}");
    }
}
