//! Inventories: which tools the sources of an agent define and which tool servers its configuration names, and how two
//! inventories differ (contract §20.2).
//!
//! Found by form, not by product: a Python function under a decorator whose name ends with `tool`, and mappings of
//! servers in JSON and YAML. What is registered in any other way is not found.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::contract::{contains_any, identifier};
use crate::gate::Verdict;
use crate::policy::{Policy, yaml_to_json};
use crate::schema;
use crate::sign::{CanonError, Limits, digest_of, parse_strict};
use crate::timestamp::Timestamp;

/// Names that say a tool destroys or pays, and those that say it changes or sends.
const CRITICAL: &[&str] = &["delete", "drop", "destroy", "wire", "payment", "transfer"];
const HIGH: &[&str] = &["write", "update", "export", "send", "email", "remove", "overwrite"];

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Item {
    /// Kind, form and name.
    pub id: String,
    /// `tool` or `mcp_server`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The file.
    pub locator: String,
    /// `critical`, `high` or `low`, by the name.
    #[serde(default)]
    pub risk_level: String,
    /// How it was found, sorted.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `gait.scout.inventory_snapshot`.
    pub schema_id: String,
    /// `1.0.0`.
    pub schema_version: String,
    /// 1980: the same files give the same bytes.
    pub created_at: Timestamp,
    /// The version of gait.
    pub producer_version: String,
    /// `snap_` and the beginning of the digest of directories and items.
    pub snapshot_id: String,
    /// The directories.
    pub workspace: String,
    /// What was found, sorted.
    pub items: Vec<Item>,
}

/// A document is no inventory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Not strict JSON.
    #[error("not strict JSON")]
    Parse(#[from] crate::sign::ParseError),
    /// Another shape.
    #[error("not an inventory snapshot")]
    Shape(#[from] serde_json::Error),
    /// Another document.
    #[error("not an inventory snapshot but {0:?}")]
    Schema(String),
}

/// Collects what files define.
#[derive(Debug, Default)]
pub struct Inventory {
    items: BTreeMap<String, Item>,
}

impl Inventory {
    /// Adds what a file defines. Returns false if it names itself a configuration of tool servers and cannot be read as
    /// one.
    pub fn add_file(&mut self, path: &str, text: &str) -> bool {
        let lower = path.to_lowercase();
        let name = lower.rsplit('/').next().unwrap_or_default();
        let of_servers = name.contains("mcp");
        let parsed = match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("py") => {
                self.python(path, text);
                return true;
            }
            Some("json") => parse_strict(text.as_bytes(), Limits::DOCUMENT).ok(),
            Some("yaml" | "yml") => yaml_to_json(text),
            _ => return true,
        };
        let Some(document) = parsed else { return !of_servers };
        let mut names = BTreeSet::new();
        servers(&document, of_servers, &mut names);
        for name in names {
            self.add("mcp_server", "mcp", path, &name);
        }
        true
    }

    fn python(&mut self, path: &str, text: &str) {
        let mut decorator: Option<String> = None;
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix('@') {
                let called = rest.split(['(', ' ', '#']).next().unwrap_or_default();
                let last = called.rsplit('.').next().unwrap_or_default();
                if last == "tool" || last.ends_with("_tool") {
                    decorator = Some(last.to_owned());
                }
                continue;
            }
            let definition = line.strip_prefix("async ").unwrap_or(line).trim_start().strip_prefix("def ");
            if let Some(rest) = definition {
                let name = rest.split('(').next().unwrap_or_default().trim();
                if let Some(decorator) = decorator.take().filter(|_| !name.is_empty()) {
                    self.add("tool", &format!("python:{decorator}"), path, name);
                }
            } else if line.starts_with("class ") {
                decorator = None;
            }
        }
    }

    fn add(&mut self, kind: &str, form: &str, path: &str, name: &str) {
        let id = format!("{kind}:{form}:{}", identifier(name));
        let lower = name.to_lowercase();
        let risk_level = if contains_any(&lower, CRITICAL) {
            "critical"
        } else if contains_any(&lower, HIGH) {
            "high"
        } else {
            "low"
        };
        let item = Item {
            id: id.clone(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            locator: path.to_owned(),
            risk_level: risk_level.to_owned(),
            tags: vec![form.to_owned()],
        };
        // The same tool in two files is told with the first of them, whichever was read first.
        let known = self.items.entry(id).or_insert_with(|| item.clone());
        if item < *known {
            *known = item;
        }
    }

    /// Makes the snapshot.
    ///
    /// # Errors
    ///
    /// Never for text.
    pub fn finish(self, workspace: &str) -> Result<Snapshot, CanonError> {
        let items: Vec<Item> = self.items.into_values().collect();
        let mut identity = Map::new();
        identity.insert("workspace".to_owned(), workspace.into());
        identity.insert("items".to_owned(), serde_json::json!(items));
        let digest = digest_of(&identity)?.to_string();
        Ok(Snapshot {
            schema_id: schema::INVENTORY_SNAPSHOT.to_owned(),
            schema_version: schema::VERSION.to_owned(),
            created_at: Timestamp::UNSET,
            producer_version: schema::PRODUCER_VERSION.to_owned(),
            snapshot_id: format!("snap_{}", &digest[..12]),
            workspace: workspace.to_owned(),
            items,
        })
    }
}

/// Collects the keys of mappings of servers.
fn servers(value: &Value, of_servers: bool, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let key = key.to_lowercase();
                if (key == "mcpservers" || of_servers && key == "servers")
                    && let Value::Object(servers) = inner
                {
                    names.extend(
                        servers.keys().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()),
                    );
                }
                servers(inner, of_servers, names);
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| servers(inner, of_servers, names)),
        _ => {}
    }
}

/// How far policies speak of the tools of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Tools.
    pub tools: usize,
    /// Tools that a rule names, or that no policy allows by silence.
    pub gated: usize,
    /// Critical and high ones.
    pub high_risk_tools: usize,
    /// Of those, the gated ones.
    pub high_risk_gated: usize,
    /// The others, sorted.
    pub ungated: Vec<String>,
}

impl Snapshot {
    /// Reads a snapshot.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are something else.
    pub fn from_json(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let value = parse_strict(bytes, Limits::DOCUMENT)?;
        let found = value.get("schema_id").and_then(Value::as_str).unwrap_or_default();
        if found != schema::INVENTORY_SNAPSHOT {
            return Err(SnapshotError::Schema(found.to_owned()));
        }
        Ok(serde_json::from_value(value)?)
    }

    /// Says how far policies speak of the tools.
    #[must_use]
    pub fn coverage(&self, policies: &[Policy]) -> Coverage {
        let gates = |policy: &Policy, tool: &Item| {
            let names = policy.rules().iter().flat_map(|rule| &rule.base.tool_names);
            policy.default_verdict() != Verdict::Allow
                || names.into_iter().any(|name| name.eq_ignore_ascii_case(&tool.name))
        };
        let mut coverage =
            Coverage { tools: 0, gated: 0, high_risk_tools: 0, high_risk_gated: 0, ungated: Vec::new() };
        for tool in self.items.iter().filter(|item| item.kind == "tool") {
            let gated = policies.iter().any(|policy| gates(policy, tool));
            let high = tool.risk_level != "low";
            coverage.tools += 1;
            coverage.gated += usize::from(gated);
            coverage.high_risk_tools += usize::from(high);
            coverage.high_risk_gated += usize::from(gated && high);
            if !gated {
                coverage.ungated.push(tool.id.clone());
            }
        }
        coverage
    }
}

/// A thing that is on both sides and differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields of the item, before and after")]
pub struct Changed {
    pub id: String,
    pub kind: String,
    pub name: String,
    pub before_locator: String,
    pub after_locator: String,
    pub before_risk_level: String,
    pub after_risk_level: String,
}

/// How two inventories differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotDiff {
    /// The one before.
    pub left_snapshot_id: String,
    /// The one after.
    pub right_snapshot_id: String,
    /// What is only after.
    pub added: Vec<Item>,
    /// What is only before.
    pub removed: Vec<Item>,
    /// What is other.
    pub changed: Vec<Changed>,
    /// How many were added.
    pub added_count: usize,
    /// How many were removed.
    pub removed_count: usize,
    /// How many are other.
    pub changed_count: usize,
}

impl SnapshotDiff {
    /// Compares two inventories by the ids of their items.
    #[must_use]
    pub fn of(left: &Snapshot, right: &Snapshot) -> Self {
        let index = |snapshot: &Snapshot| -> BTreeMap<String, Item> {
            snapshot.items.iter().map(|item| (item.id.clone(), item.clone())).collect()
        };
        let (before, after) = (index(left), index(right));
        let only = |one: &BTreeMap<String, Item>, other: &BTreeMap<String, Item>| -> Vec<Item> {
            one.iter().filter(|(id, _)| !other.contains_key(*id)).map(|(_, item)| item.clone()).collect()
        };
        let (added, removed) = (only(&after, &before), only(&before, &after));
        let changed: Vec<_> = after
            .iter()
            .filter_map(|(id, new)| before.get(id).filter(|old| *old != new).map(|old| (old, new)))
            .map(|(old, new)| Changed {
                id: new.id.clone(),
                kind: new.kind.clone(),
                name: new.name.clone(),
                before_locator: old.locator.clone(),
                after_locator: new.locator.clone(),
                before_risk_level: old.risk_level.clone(),
                after_risk_level: new.risk_level.clone(),
            })
            .collect();
        Self {
            left_snapshot_id: left.snapshot_id.clone(),
            right_snapshot_id: right.snapshot_id.clone(),
            added_count: added.len(),
            removed_count: removed.len(),
            changed_count: changed.len(),
            added,
            removed,
            changed,
        }
    }

    /// Returns whether nothing differs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: &str = "\
import x

@x.tool(name='other')
@cached
async def read_notes(path):
    pass

class Helper:
    @property
    def not_a_tool(self): pass

@function_tool
def send_email(to): pass

def toolbox(): pass
";

    fn snapshot(files: &[(&str, &str)]) -> Snapshot {
        let mut inventory = Inventory::default();
        for (path, text) in files {
            assert!(inventory.add_file(path, text), "{path}");
        }
        inventory.finish(".").unwrap()
    }

    #[test]
    fn decorated_functions_and_servers_are_found_by_their_form() {
        let servers = r#"{"mcpServers": {"files": {}, "Delete Things": {}}, "servers": {"no": {}}}"#;
        let found = snapshot(&[
            ("a/tools.py", TOOLS),
            ("settings.json", servers),
            (".mcp.yaml", "servers:\n  web: {url: x}\n"),
            ("openapi.yaml", "servers:\n  - url: x\n"),
            ("broken.json", "{"),
            ("readme.md", "@tool\ndef x():"),
        ]);
        let ids: Vec<_> = found.items.iter().map(|item| (&*item.id, &*item.risk_level)).collect();
        assert_eq!(
            ids,
            [
                ("mcp_server:mcp:delete_things", "critical"),
                ("mcp_server:mcp:files", "low"),
                ("mcp_server:mcp:web", "low"),
                ("tool:python:function_tool:send_email", "high"),
                ("tool:python:tool:read_notes", "low"),
            ]
        );
        assert!(!Inventory::default().add_file("mcp.json", "{"));
    }

    #[test]
    fn the_order_of_files_does_not_matter_and_a_change_is_told() {
        let (one, two) = (("a.py", TOOLS), ("b.py", TOOLS));
        let (forth, back) = (snapshot(&[one, two]), snapshot(&[two, one]));
        assert_eq!(forth, back);
        assert!(SnapshotDiff::of(&forth, &back).is_empty());
        let moved = snapshot(&[("c.py", "@tool\ndef read_notes(): pass\n@tool\ndef drop_table(): pass\n")]);
        let diff = SnapshotDiff::of(&forth, &moved);
        assert_eq!((diff.added_count, diff.removed_count, diff.changed_count), (1, 1, 1));
        assert_eq!((&*diff.changed[0].before_locator, &*diff.changed[0].after_locator), ("a.py", "c.py"));
        assert_ne!(forth.snapshot_id, moved.snapshot_id);
    }

    #[test]
    fn a_tool_is_gated_by_its_name_or_by_a_default_that_does_not_allow() {
        let found = snapshot(&[("a.py", TOOLS)]);
        let policy = |text: &str| Policy::parse("p.yaml", text).unwrap();
        let named = policy(
            "default_verdict: allow\nrules:\n  - {name: a, effect: block, match: {tool_names: [send_email]}}\n",
        );
        let coverage = found.coverage(std::slice::from_ref(&named));
        assert_eq!(
            (coverage.tools, coverage.gated, coverage.high_risk_tools, coverage.high_risk_gated),
            (2, 1, 1, 1)
        );
        assert_eq!(coverage.ungated, ["tool:python:tool:read_notes"]);
        assert_eq!(found.coverage(&[named, policy("default_verdict: block\n")]).gated, 2);
        assert_eq!(found.coverage(&[]).gated, 0);
    }
}
