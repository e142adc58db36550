//! The normative page: its tables are made from the table of artefacts and from the lock's digest rules.

use std::fmt::Write as _;

use gait_agent::endpoint::{EndpointClass, Operation};

use crate::artefacts::{ARTEFACTS, COPIED, CheckedBy};
use crate::lock::digests;
use crate::schemas::artefact;
use crate::{hold, place};

const PAGE: &str = "docs/contracts/primitive_contract.md";

/// The text of one generated part.
fn part(name: &str) -> String {
    match name.split_once(' ') {
        Some(("fields", file)) => {
            let artefact = artefact(file);
            artefact.shape.record().unwrap().tables(artefact.title)
        }
        None if name == "schemas" => schemas(),
        None if name == "operations" => operations(),
        None if name == "vectors" => vectors(),
        _ => panic!("{PAGE} asks for {name:?}, which nothing makes"),
    }
}

fn schemas() -> String {
    let mut rows: Vec<_> = ARTEFACTS.iter().map(|artefact| (artefact.file, artefact.title)).collect();
    rows.extend(COPIED.iter().map(|(_, file)| (*file, "Policy, as JSON (docs/policy.md)")));
    rows.sort_unstable();
    let mut text = String::from("| schema | document |\n|---|---|\n");
    for (file, title) in rows {
        writeln!(text, "| [{file}](schemas/v1/{file}.schema.json) | {title} |").unwrap();
    }
    text
}

fn operations() -> String {
    let mut text = String::from("| `tool_name` | operations |\n|---|---|\n");
    for class in EndpointClass::ALL {
        let all = Operation::ALL.iter().filter(|operation| operation.class() == class);
        let mut words: Vec<_> = all
            .map(|operation| {
                let destroys = operation.is_destructive()
                    || matches!(class, EndpointClass::FsDelete | EndpointClass::ProcExec);
                format!("`{}`{}", operation.as_str(), if destroys { " †" } else { "" })
            })
            .collect();
        words.dedup();
        if !words.is_empty() {
            writeln!(text, "| `os.{class}` | {} |", words.join(", ")).unwrap();
        }
    }
    text
}

fn vectors() -> String {
    let mut text = String::from("| vector | value |\n|---|---|\n");
    for (name, value) in digests().iter().filter(|(name, _)| !name.contains("of the event")) {
        writeln!(text, "| {name} | `{value}` |").unwrap();
    }
    text
}

/// The page with its generated parts made anew.
fn made(page: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("<!-- made: ") {
        let (name, after) = after.split_once(" -->").unwrap();
        let (_, after) = after.split_once("<!-- end -->").unwrap();
        write!(text, "{before}<!-- made: {name} -->\n{}<!-- end -->", part(name)).unwrap();
        rest = after;
    }
    text + rest
}

#[test]
fn the_tables_of_the_page_are_those_of_the_types() {
    let page = std::fs::read_to_string(place(PAGE)).unwrap();
    hold(PAGE, &made(&page));
    for artefact in ARTEFACTS.iter().filter(|it| matches!(it.checked_by, CheckedBy::Fixtures(_))) {
        let mark = format!("<!-- made: fields {} -->", artefact.file);
        assert_eq!(page.matches(&mark).count(), 1, "the page has one table of {}", artefact.file);
    }
    for name in ["schemas", "operations", "vectors"] {
        assert_eq!(page.matches(&format!("<!-- made: {name} -->")).count(), 1, "{name}");
    }
}

/// Links of the page and of the fixtures' README lead somewhere, and the README leads to the page.
#[test]
fn links_resolve() {
    for page in [PAGE, "docs/contracts/fixtures/v1/README.md"] {
        let text = std::fs::read_to_string(place(page)).unwrap();
        let folder = place(page).parent().unwrap().to_owned();
        let mut links = 0;
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let file = link.split('#').next().unwrap();
            assert!(file.starts_with("https://") || folder.join(file).exists(), "{page}: {link}");
            if let Some((file, anchor)) = link.split_once('#') {
                let text = std::fs::read_to_string(folder.join(file)).unwrap();
                let plain = |line: &str| {
                    line.trim_start_matches('#').trim().to_lowercase().replace('.', "").replace(' ', "-")
                };
                let found = text.lines().any(|line| line.starts_with('#') && plain(line) == anchor);
                assert!(found, "{page}: {link}");
            }
            links += 1;
        }
        assert!(links > 0);
    }
    let readme = std::fs::read_to_string(place("README.md")).unwrap();
    assert!(readme.contains("(docs/contracts/primitive_contract.md)"), "README.md leads to {PAGE}");
}
