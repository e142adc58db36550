//! Whole programs on both sides: from the start of the session to the end of sealing, and the workload alone in between.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::args::{ExecArgs, ProbeKind};
use crate::error::BenchError;
use crate::report::{Report, number};

use super::runner::{Pairs, Runner, Side, WorkDir, spread_cell, turns};
use super::{add_table, head};

/// One row: a name and what makes the command. `units` is how much of it there is at full scale.
pub(crate) struct Row {
    name: &'static str,
    units: usize,
    build: fn(&Path, usize, &Runner) -> Result<Workload, BenchError>,
}

/// A command, and what it leaves behind that the next run must not find.
struct Workload {
    argv: Vec<OsString>,
    leftovers: &'static [&'static str],
}

pub(crate) const ROWS: [Row; 7] = [
    Row { name: "python", units: 50, build: python },
    Row { name: "git", units: 300, build: git },
    Row { name: "exec_loop", units: 1_000, build: exec_loop },
    Row { name: "grep", units: 10_000, build: grep },
    Row { name: "churn", units: 5_000, build: churn },
    Row { name: "build", units: 40, build: c_build },
    Row { name: "http", units: 500, build: http },
];

/// The times of a workload, in milliseconds.
#[derive(Default)]
struct Sides {
    wall: Pairs,
    /// Of the workload's processes and gait's.
    cpu: Pairs,
    /// The workload's own, from inside.
    inside: Pairs,
    own_cpu: Pairs,
}

impl Row {
    /// Returns the name of the number that this row reports.
    pub(crate) fn number(&self) -> String {
        format!("exec.{}.ratio", self.name)
    }
}

pub(crate) fn measure(
    args: &ExecArgs,
    runner: &Runner,
    work: &WorkDir,
    report: &mut Report,
) -> Result<(), BenchError> {
    let mut rows = head(&[
        "workload",
        "native ms [p25 to p75]",
        "gait exec ms [p25 to p75]",
        "ratio",
        "of all CPU time",
        "without start and seal",
        "of its own CPU time",
    ]);
    for row in ROWS.iter().filter(|row| args.rows.wants(row.name)) {
        match gather(args, runner, work, row) {
            Ok(Sides { wall, cpu, inside, own_cpu }) => {
                rows.push(vec![
                    row.name.to_owned(),
                    spread_cell(wall.native()),
                    spread_cell(wall.gait()),
                    number(wall.ratio()),
                    number(cpu.ratio()),
                    number(inside.ratio()),
                    number(own_cpu.ratio()),
                ]);
                report.numbers.insert(row.number(), wall.ratio());
                for (of, pairs) in [("cpu", &cpu), ("inside", &inside), ("own_cpu", &own_cpu)] {
                    report.numbers.insert(format!("exec.{}.{of}_ratio", row.name), pairs.ratio());
                }
            }
            Err(error) => report.failures.push(format!("{}: {error}", row.name)),
        }
    }
    add_table(report, "workloads", rows);
    Ok(())
}

fn gather(args: &ExecArgs, runner: &Runner, work: &WorkDir, row: &Row) -> Result<Sides, BenchError> {
    let dir = work.make(&format!("workload-{}", row.name))?;
    let workload = (row.build)(&dir, args.scaled(row.units), runner)?;
    // Once unmeasured: caches are warm for both sides.
    runner.run(Side::Native, &dir, &workload.argv)?;
    clean(&dir, workload.leftovers)?;
    let mut found = Sides::default();
    let argv = runner.inside(&workload.argv);
    for side in turns(args.rounds()) {
        let run = runner.run(side, &dir, &argv)?;
        clean(&dir, workload.leftovers)?;
        let inside = run.inside()?;
        found.wall.push(side, run.wall.as_secs_f64() * 1e3);
        found.cpu.push(side, run.cpu.as_secs_f64() * 1e3);
        found.inside.push(side, inside.wall_ms);
        found.own_cpu.push(side, inside.cpu_ms);
    }
    Ok(found)
}

fn clean(dir: &Path, leftovers: &[&str]) -> Result<(), BenchError> {
    for name in leftovers {
        let path = dir.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| BenchError::io(path.display().to_string(), e))?;
    }
    Ok(())
}

fn shell(script: String) -> Vec<OsString> {
    ["sh", "-ec", &script].map(OsString::from).to_vec()
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    fs::write(path, text).map_err(|e| BenchError::io(path.display().to_string(), e))
}

/// Runs a program natively, as preparation.
fn prepare(dir: &Path, program: &str, args: &[&str]) -> Result<String, BenchError> {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .map_err(|e| BenchError::io(program.to_owned(), e))?;
    if !output.status.success() {
        let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BenchError::Program { command: program.to_owned(), detail });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The interpreter itself: `python3` may be a version manager's shell script.
fn interpreter(dir: &Path) -> Result<String, BenchError> {
    prepare(dir, "python3", &["-c", "import sys; print(sys.executable)"])
}

fn python(dir: &Path, starts: usize, _: &Runner) -> Result<Workload, BenchError> {
    let python = interpreter(dir)?;
    let script = format!("i=0; while [ $i -lt {starts} ]; do '{python}' -c 'import json'; i=$((i+1)); done");
    Ok(Workload { argv: shell(script), leftovers: &[] })
}

fn git(dir: &Path, files: usize, _: &Runner) -> Result<Workload, BenchError> {
    let source = dir.join("source");
    fs::create_dir(&source).map_err(|e| BenchError::io(source.display().to_string(), e))?;
    for i in 0..files {
        write(&source.join(format!("file-{i}.txt")), &format!("needle {i}\n{}", "filler\n".repeat(40)))?;
    }
    prepare(&source, "git", &["init", "--quiet", "--template="])?;
    prepare(&source, "git", &["add", "--all"])?;
    let identity =
        ["-c", "user.name=Bench", "-c", "user.email=bench@example.invalid", "-c", "commit.gpgSign=false"];
    let commit = [identity.as_slice(), &["commit", "--quiet", "--message", "files"]].concat();
    prepare(&source, "git", &commit)?;
    let script =
        "git clone --quiet source copy; cd copy; git status --porcelain; git grep -c needle > /dev/null";
    Ok(Workload { argv: shell(script.to_owned()), leftovers: &["copy"] })
}

fn exec_loop(_: &Path, starts: usize, _: &Runner) -> Result<Workload, BenchError> {
    let script = format!("i=0; while [ $i -lt {starts} ]; do /bin/true; i=$((i+1)); done");
    Ok(Workload { argv: shell(script), leftovers: &[] })
}

fn grep(dir: &Path, files: usize, _: &Runner) -> Result<Workload, BenchError> {
    let content = "some line of source text that does not match\n".repeat(45);
    for i in 0..files {
        let sub = dir.join(format!("tree/{}", i / 100));
        if i % 100 == 0 {
            fs::create_dir_all(&sub).map_err(|e| BenchError::io(sub.display().to_string(), e))?;
        }
        write(&sub.join(format!("{i}.txt")), &content)?;
    }
    write(&dir.join("tree/needle"), "needle\n")?;
    Ok(Workload { argv: shell("grep -r needle tree".to_owned()), leftovers: &[] })
}

fn churn(_: &Path, files: usize, runner: &Runner) -> Result<Workload, BenchError> {
    let argv = runner.probe(ProbeKind::Churn, files);
    Ok(Workload { argv, leftovers: &[] })
}

fn c_build(dir: &Path, files: usize, _: &Runner) -> Result<Workload, BenchError> {
    let mut calls = String::new();
    for i in 0..files {
        let body = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
             int unit_{i}(int x) {{ char b[64]; snprintf(b, sizeof b, \"%d\", x + {i}); return (int)strlen(b); }}\n"
        );
        write(&dir.join(format!("unit_{i}.c")), &body)?;
        calls.push_str(&format!("int unit_{i}(int); s += unit_{i}(s);\n"));
    }
    write(&dir.join("main.c"), &format!("int main(void) {{ int s = 0;\n{calls}return s == 0; }}\n"))?;
    let makefile = "objects := $(patsubst %.c,%.o,$(wildcard *.c))\n\
                    out/program: $(objects)\n\tmkdir -p out && $(CC) -o $@ $^ && mv *.o out/\n";
    write(&dir.join("Makefile"), makefile)?;
    let argv = ["make", "-j2", "-s", "CFLAGS=-O1"].map(OsString::from).to_vec();
    Ok(Workload { argv, leftovers: &["out"] })
}

fn http(dir: &Path, requests: usize, _: &Runner) -> Result<Workload, BenchError> {
    let script = format!(
        r#"
import http.client, http.server, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for _ in range({requests}):
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello"
    connection.close()
"#
    );
    write(&dir.join("http_bench.py"), &script)?;
    Ok(Workload {
        argv: [interpreter(dir)?, "http_bench.py".to_owned()].map(OsString::from).to_vec(),
        leftovers: &[],
    })
}
