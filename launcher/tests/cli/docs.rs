//! What the documents show exists: every `gait …` command with its flags, and every link with its anchor.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use gait::cli::args::{Cli, rewrite};

/// Folders that hold no documents of this repository.
const NOT_OURS: [&str; 7] =
    ["target", ".git", "node_modules", "gait-out", "__pycache__", "build", "snapshots"];
/// Fences whose lines are commands, or show some.
const SHELL_FENCES: [&str; 4] = ["", "sh", "bash", "console"];
/// What stands for the program in documents and scripts.
const PROGRAMS: [&str; 6] =
    ["gait", "target/release/gait", "target/debug/gait", "$gait", "$GAIT", "$GAIT_BIN"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file of the repository that ends in one of `suffixes`.
fn files(suffixes: &[&str]) -> Vec<PathBuf> {
    fn walk(dir: &Path, suffixes: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !path.is_symlink() {
                if !NOT_OURS.contains(&name) {
                    walk(&path, suffixes, found);
                }
            } else if suffixes.iter().any(|suffix| name.ends_with(suffix)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), suffixes, &mut found);
    found.sort();
    found
}

/// A line of a Markdown document: in a fence of a language, or text.
enum Line<'a> {
    Fenced(&'a str, &'a str),
    Text(&'a str),
}

fn lines(document: &str) -> Vec<(usize, Line<'_>)> {
    let mut fence = None;
    let mut found = Vec::new();
    for (index, line) in document.lines().enumerate() {
        let marker = line.trim_start().strip_prefix("```");
        match (marker, fence) {
            (Some(language), None) => fence = Some(language.trim()),
            (Some(_), Some(_)) => fence = None,
            (None, Some(language)) => found.push((index + 1, Line::Fenced(language, line))),
            (None, None) => found.push((index + 1, Line::Text(line))),
        }
    }
    found
}

/// The code spans of a line of text.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The commands of a line of shell: what follows the program's name, up to the end of its simple command.
fn commands(line: &str) -> Vec<Vec<String>> {
    let line = line.trim_start().trim_start_matches("$ ");
    if line.starts_with('#') {
        return Vec::new();
    }
    let mut found = Vec::new();
    for simple in line.replace("$(", "\n").replace("&&", "\n").replace(['|', ';'], "\n").lines() {
        let words: Vec<String> = simple.split_whitespace().map(|word| word.replace('"', "")).collect();
        let mut words = words.into_iter().skip_while(|word| is_prefix(word)).peekable();
        let by_cargo =
            words.peek().is_some_and(|word| word == "cargo") && words.nth(1).as_deref() == Some("run");
        if by_cargo {
            // `cargo run --release -- exec -- …`; with `-p` it is another program.
            let cargo: Vec<String> = words.by_ref().take_while(|word| word != "--").collect();
            if cargo.contains(&"-p".to_owned()) {
                continue;
            }
        } else if !words.next().is_some_and(|word| PROGRAMS.contains(&&*word)) {
            continue;
        }
        let ends = |word: &String| word == "#" || word == "\\" || word == ")" || word.starts_with(['>', '&']);
        found.push(words.take_while(|word| !ends(word)).collect());
    }
    found
}

/// `NAME=value`, `!` and the words of a shell before a command.
fn is_prefix(word: &str) -> bool {
    let assignment = word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    assignment
        || ["!", "if", "then", "while", "do", "timeout", "expect"].contains(&word)
        || word.parse::<u32>().is_ok()
}

/// Says what of a command does not exist.
fn wrong(command: &[String]) -> Option<String> {
    let argv: Vec<OsString> =
        std::iter::once("gait").chain(command.iter().map(String::as_str)).map(OsString::from).collect();
    let mut root = Cli::command();
    root.build();
    let mut verb: &Command = &root;
    let named = |verb: &Command| verb.get_bin_name().unwrap_or("gait").to_owned();
    let mut words = rewrite(&argv).into_iter().skip(1).map(|word| word.into_string().unwrap());
    while let Some(word) = words.next() {
        let word = word.trim_matches(['[', ']', ',', '.', ')']);
        // What a variable of the shell stands for cannot be told.
        if word == "--" || (word.starts_with('$') && verb.has_subcommands()) {
            break;
        }
        if word.is_empty() || word == "…" || word.starts_with(['<', '{']) {
            continue;
        }
        if let Some(flag) = word.strip_prefix("--") {
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            let Some(argument) = verb.get_arguments().find(|argument| argument.get_long() == Some(name))
            else {
                return Some(format!("`{}` has no --{name}", named(verb)));
            };
            if value.is_none() && argument.get_action().takes_values() {
                words.next();
            }
        } else if let Some(short) = word.strip_prefix('-') {
            if !verb
                .get_arguments()
                .any(|argument| argument.get_short().is_some_and(|own| short == own.to_string()))
            {
                return Some(format!("`{}` has no -{short}", named(verb)));
            }
        } else if let Some(next) = verb.find_subcommand(word) {
            verb = next;
        } else if verb.get_positionals().next().is_none() {
            let what = if verb.has_subcommands() { "has no verb" } else { "takes no" };
            return Some(format!("`{}` {what} {word}", named(verb)));
        }
    }
    None
}

/// Every command that a document or a script shows, with its place.
fn shown() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for path in files(&[".md"]) {
        let document = fs::read_to_string(&path).unwrap();
        let mut unfinished = String::new();
        for (number, line) in lines(&document) {
            let here = format!("{}:{number}", path.display());
            match line {
                Line::Fenced(language, line) if SHELL_FENCES.contains(&language) => {
                    unfinished.push_str(line);
                    if !line.ends_with('\\') {
                        found.extend(
                            commands(&std::mem::take(&mut unfinished))
                                .into_iter()
                                .map(|words| (here.clone(), words)),
                        );
                    }
                }
                Line::Fenced(..) => {}
                Line::Text(line) => {
                    let spans = spans(line).flat_map(commands).filter(|words| !words.is_empty());
                    found.extend(spans.map(|words| (here.clone(), words)));
                }
            }
        }
    }
    for path in files(&[".sh", ".yml", "justfile"]) {
        for (index, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let here = format!("{}:{}", path.display(), index + 1);
            found.extend(commands(line).into_iter().map(|words| (here.clone(), words)));
        }
    }
    found
}

#[test]
fn every_command_that_is_shown_exists() {
    let shown = shown();
    let mistakes: Vec<String> = shown
        .iter()
        .filter_map(|(place, words)| Some(format!("{place}: {} (`gait {}`)", wrong(words)?, words.join(" "))))
        .collect();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    let places: BTreeSet<&str> =
        shown.iter().filter_map(|(place, _)| place.rsplit_once(':')).map(|(file, _)| file).collect();
    let readme = root().join("README.md");
    assert!(
        shown.len() > 50 && places.contains(readme.to_str().unwrap()),
        "only {} commands were found",
        shown.len()
    );
}

#[test]
fn commands_that_do_not_exist_are_noticed() {
    for (line, complaint) in [
        ("gait exec --policy ci -- gait frobnicate --never", None),
        ("$ gait verify <run id or path>            # a comment", None),
        ("GAIT_X=1 gait -json=true gate eval -policy p -intent i", None),
        ("cargo run --release -- exec -- true", None),
        ("cargo run -p gait-bench -- exec --quick", None),
        ("x | gait frobnicate", Some("has no verb frobnicate")),
        ("if ! \"$GAIT\" verify x --frob; then", Some("has no --frob")),
        ("cargo run --release -- frob", Some("has no verb frob")),
        ("true && gait gate evaluate", Some("has no verb evaluate")),
        ("gait doctor everything", Some("takes no everything")),
        ("gait version -q", Some("has no -q")),
    ] {
        let said: Vec<String> = commands(line).iter().filter_map(|words| wrong(words)).collect();
        match complaint {
            None => assert!(said.is_empty(), "{line}: {said:?}"),
            Some(text) => assert!(said.iter().any(|said| said.contains(text)), "{line}: {said:?}"),
        }
    }
}

/// The targets of the links in a line of text.
fn links(line: &str) -> Vec<&str> {
    let definition = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    let mut found: Vec<&str> = definition.into_iter().map(|(_, target)| target.trim()).collect();
    let mut rest = line;
    while let Some((_, after)) = rest.split_once("](") {
        let Some((target, tail)) = after.split_once(')') else { break };
        found.push(target.split_whitespace().next().unwrap_or_default());
        rest = tail;
    }
    found
}

/// The anchors of a document, as the forges make them of headings.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for (_, line) in lines(document) {
        let Line::Text(line) = line else { continue };
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        let Some(heading) = line[level..].strip_prefix(' ').filter(|_| level > 0) else { continue };
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = seen.entry(slug.clone()).or_insert(0);
        found.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    found
}

/// Says what is wrong with a link of the document at `path`.
fn broken(path: &Path, target: &str) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let goal = if file.is_empty() { path.to_owned() } else { path.parent().unwrap().join(file) };
    if !goal.exists() || file.starts_with('/') {
        return Some(format!("{target} does not exist"));
    }
    let anchor = anchor?;
    let known = anchors(&fs::read_to_string(&goal).unwrap_or_default());
    (!known.contains(anchor)).then(|| format!("{target} has no such heading"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut mistakes = Vec::new();
    let mut checked = 0;
    for path in files(&[".md"]) {
        let document = fs::read_to_string(&path).unwrap();
        for (number, line) in lines(&document) {
            let Line::Text(line) = line else { continue };
            let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("_");
            for target in links(&prose) {
                checked += 1;
                mistakes
                    .extend(broken(&path, target).map(|what| format!("{}:{number}: {what}", path.display())));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(checked > 20, "only {checked} links were found");
}

#[test]
fn broken_links_are_noticed() {
    let readme = root().join("README.md");
    let found = links("see [a](docs/policy.md) and [b](docs/none.md \"title\"), [c](#nowhere)");
    assert_eq!(found, ["docs/policy.md", "docs/none.md", "#nowhere"]);
    assert_eq!(links("[id]: docs/none.md"), ["docs/none.md"]);
    for (target, fine) in [
        ("docs/policy.md", true),
        ("docs/policy.md#a-rule", true),
        ("docs/policy.md#match-facts-of-the-kernel", true),
        ("https://example.com/nothing", true),
        ("docs/none.md", false),
        ("docs/policy.md#nowhere", false),
        ("#nowhere", false),
        ("/etc/passwd", false),
    ] {
        assert_eq!(broken(&readme, target).is_none(), fine, "{target}");
    }
    assert!(anchors("# A\n## A\n```\n# no\n```\n").iter().eq(["a", "a-1"]));
}
