//! `gait scout snapshot` and `gait scout diff`: which tools are there, and what changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use gait_agent::scout::{Coverage, Inventory, Snapshot, SnapshotDiff};
use serde::Serialize;

use super::output::one_line;
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file::{Existing, Staged};
use crate::input;
use crate::policy_source::load_policy;

/// Sources and configurations are small; more is something else.
const FILE_BYTES: u64 = 8 << 20;
/// Files of one inventory.
const MAX_FILES: usize = 200_000;
/// Directories in each other.
const MAX_DEPTH: usize = 64;
/// Directories that hold what others wrote.
const SKIPPED: [&str; 5] = [".git", "node_modules", "__pycache__", "target", ".venv"];
const EXTENSIONS: [&str; 4] = ["py", "json", "yaml", "yml"];

/// Flags of `gait scout snapshot`.
#[derive(Debug, Args)]
pub struct ScoutSnapshot {
    /// Directories to look into.
    #[arg(long, value_name = "DIR,…", value_delimiter = ',', default_value = ".")]
    pub roots: Vec<PathBuf>,
    /// Only files whose path contains one of these.
    #[arg(long, value_name = "TEXT,…", value_delimiter = ',')]
    pub include: Vec<String>,
    /// No files whose path contains one of these.
    #[arg(long, value_name = "TEXT,…", value_delimiter = ',')]
    pub exclude: Vec<String>,
    /// Policies, to say how far they speak of the tools.
    #[arg(long, value_name = "POLICY,…", value_delimiter = ',')]
    pub policy: Vec<String>,
    /// Where the snapshot goes [default: `gait-out/inventory_snapshot_ID.json`].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where the coverage goes.
    #[arg(long, value_name = "FILE", requires = "policy")]
    pub coverage_out: Option<PathBuf>,
}

/// Arguments of `gait scout diff`.
#[derive(Debug, Args)]
pub struct ScoutDiff {
    /// The snapshot before.
    pub left: PathBuf,
    /// The snapshot after.
    pub right: PathBuf,
    /// Where the difference goes, too.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Serialize)]
struct SnapshotReport {
    snapshot_path: String,
    snapshot_id: String,
    items: usize,
    coverage: Option<Coverage>,
    coverage_path: Option<String>,
}

#[derive(Serialize)]
struct DiffReport {
    #[serde(flatten)]
    diff: SnapshotDiff,
    output: Option<String>,
}

/// Takes an inventory.
///
/// # Errors
///
/// Directories that cannot be read, bad policies, files that cannot be written.
pub(super) fn snapshot(args: &ScoutSnapshot) -> Result<Answer, CliError> {
    let policies = args.policy.iter().map(|name| load_policy(name)).collect::<Result<Vec<_>, _>>()?;
    let plain = |path: &PathBuf| -> PathBuf {
        let plain: PathBuf = path.components().filter(|one| *one != Component::CurDir).collect();
        if plain.as_os_str().is_empty() { PathBuf::from(".") } else { plain }
    };
    let roots: BTreeSet<PathBuf> = args.roots.iter().map(plain).collect();
    let mut files = BTreeSet::new();
    for root in &roots {
        let failed = |error| CliError::input(format!("read directory {}", root.display())).because(error);
        walk(root, MAX_DEPTH, &mut files).map_err(failed)?;
    }
    let mut inventory = Inventory::default();
    let mut warnings = Vec::new();
    for path in &files {
        let shown = path.strip_prefix("./").unwrap_or(path).display().to_string();
        let named =
            |texts: &[String]| texts.iter().any(|text| !text.is_empty() && shown.contains(text.as_str()));
        if named(&args.exclude) || !args.include.is_empty() && !named(&args.include) {
            continue;
        }
        match input::read_text("source", path, FILE_BYTES) {
            Ok(text) if inventory.add_file(&shown, &text) => {}
            Ok(_) => {
                warnings.push(format!("{shown} is neither strict JSON nor YAML; its servers are not known"))
            }
            Err(error) => warnings.push(CliError::from(error).text()),
        }
    }
    let workspace = roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(",");
    let internal = |error| CliError::new(ErrorCode::InternalFailure, "make the snapshot").because(error);
    let snapshot = inventory.finish(&workspace).map_err(internal)?;
    let default = || PathBuf::from(format!("gait-out/inventory_snapshot_{}.json", snapshot.snapshot_id));
    let place = args.out.clone().unwrap_or_else(default);
    let coverage = (!policies.is_empty()).then(|| snapshot.coverage(&policies));
    write(&place, &snapshot)?;
    if let (Some(path), Some(coverage)) = (&args.coverage_out, &coverage) {
        write(path, coverage)?;
    }
    let report = SnapshotReport {
        snapshot_path: place.display().to_string(),
        snapshot_id: snapshot.snapshot_id,
        items: snapshot.items.len(),
        coverage,
        coverage_path: args.coverage_out.as_ref().map(|path| path.display().to_string()),
    };
    let mut text = format!(
        "scout snapshot ok: {} id={} items={}",
        one_line(&report.snapshot_path),
        report.snapshot_id,
        report.items
    );
    if let Some(it) = &report.coverage {
        text.push_str(&format!(
            "\ncoverage: gated={}/{} high_risk={}/{}",
            it.gated, it.tools, it.high_risk_gated, it.high_risk_tools
        ));
    }
    Ok(Answer::ok(&report, text)?.warn(warnings))
}

/// Compares two inventories; a difference is exit 2.
///
/// # Errors
///
/// Files that cannot be read or are something else, a file that cannot be written.
pub(super) fn diff(args: &ScoutDiff) -> Result<Answer, CliError> {
    let read = |path: &Path| -> Result<Snapshot, CliError> {
        let bytes = input::read("snapshot", path, FILE_BYTES)?;
        Snapshot::from_json(&bytes)
            .map_err(|error| CliError::input(format!("snapshot {}", path.display())).because(error))
    };
    let diff = SnapshotDiff::of(&read(&args.left)?, &read(&args.right)?);
    if let Some(path) = &args.out {
        write(path, &diff)?;
    }
    let same = diff.is_empty();
    let outcome = if same { "ok" } else { "changed" };
    let mut lines = vec![format!(
        "scout diff {outcome}: added={} removed={} changed={}",
        diff.added_count, diff.removed_count, diff.changed_count
    )];
    let items = [("added", &diff.added), ("removed", &diff.removed)];
    for (what, list) in items {
        lines.extend(list.iter().map(|it| format!("{what}: {} {}", one_line(&it.id), one_line(&it.locator))));
    }
    lines.extend(diff.changed.iter().map(|it| format!("changed: {}", one_line(&it.id))));
    let report = DiffReport { diff, output: args.out.as_ref().map(|path| path.display().to_string()) };
    Ok(Answer::ok(&report, lines.join("\n"))?.exit(if same {
        0
    } else {
        ErrorCode::VerificationFailed.exit()
    }))
}

fn write(path: &Path, document: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(document)
        .map_err(|error| CliError::new(ErrorCode::InternalFailure, "write the document").because(error))?;
    text.push('\n');
    Staged::write(path, text.as_bytes())
        .and_then(|staged| staged.commit(Existing::Replace))
        .map_err(|error| CliError::io(format!("write {}", path.display())).because(error))
}

fn walk(directory: &Path, depth: usize, files: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    let deeper =
        depth.checked_sub(1).ok_or_else(|| std::io::Error::other("too many directories in each other"))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Links are not followed: they could lead round in circles.
        let (kind, path) = (entry.file_type()?, entry.path());
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if kind.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                walk(&path, deeper, files)?;
            }
        } else if kind.is_file() && name.rsplit_once('.').is_some_and(|(_, it)| EXTENSIONS.contains(&it)) {
            if files.len() >= MAX_FILES {
                return Err(std::io::Error::other(format!("more than {MAX_FILES} files; narrow --roots")));
            }
            files.insert(path);
        }
    }
    Ok(())
}
