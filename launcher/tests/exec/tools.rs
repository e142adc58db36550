//! Real tools run clean under the default policy: same result, nothing blocked, nothing left behind.
//!
//! Every script runs without gait first; a tool that is not installed is the only reason to skip, and says so.

use std::time::Duration;

use serde_json::json;

use crate::harness::{World, skipped, which};
use crate::terminal::talk_under_gait;

/// A world with a git repository as the workspace, under the default policy.
fn repository() -> World {
    let mut world = World::new();
    world.use_builtin("coding-agent");
    world.patience(Duration::from_secs(120));
    let real_home = std::env::var("HOME").unwrap_or_default();
    // Tool chains live in the real home; what they write goes to the world's.
    for (key, below) in [("RUSTUP_HOME", ".rustup"), ("PYENV_ROOT", ".pyenv")] {
        let value = std::env::var(key).unwrap_or_else(|_| format!("{real_home}/{below}"));
        world.env(key, value);
    }
    for (key, value) in [
        ("GIT_AUTHOR_NAME", "t"),
        ("GIT_AUTHOR_EMAIL", "t@example.invalid"),
        ("GIT_COMMITTER_NAME", "t"),
        ("GIT_COMMITTER_EMAIL", "t@example.invalid"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
    ] {
        world.env(key, value);
    }
    world.env("CARGO_HOME", world.root().join("home/.cargo"));
    let init = "git init -q . && git add -A && git commit -qm first";
    world.native(&["sh", "-c", init]).expect_code(0);
    world
}

/// Runs a script without gait and with it, and compares.
fn runs_clean(tools: &[&str], script: &str) {
    if let Some(missing) = tools.iter().find(|tool| which(tool).is_none()) {
        return skipped(missing, "it is not installed");
    }
    let native = repository();
    let expected = native.native(&["sh", "-ec", script]);
    assert_eq!(
        expected.code(),
        0,
        "the script fails without gait too\n{}{}",
        expected.stdout,
        expected.stderr
    );
    let status = native.native(&["git", "status", "--porcelain"]).stdout;

    let world = repository();
    let outcome = world.gait(&["sh", "-ec", script]);
    outcome.expect_code(0).expect_clean();
    assert_eq!(outcome.stdout, expected.stdout, "{}", outcome.stderr);
    world.assert_no_survivor(Duration::from_millis(500));
    assert_eq!(world.native(&["git", "status", "--porcelain"]).stdout, status);
    world.runpack();
}

#[test]
fn python() {
    runs_clean(
        &["python3"],
        r#"python3 - <<'X'
import asyncio, concurrent.futures as cf, json, multiprocessing as mp, os, subprocess, tempfile, threading
with tempfile.TemporaryDirectory() as d:
    open(os.path.join(d, "x"), "w").write("x")
print(subprocess.run(["echo", "sub"], capture_output=True, text=True).stdout.strip())
with mp.get_context("fork").Pool(2) as p: print(p.map(abs, [-1, -2, -3]))
with cf.ThreadPoolExecutor(8) as e: print(sum(e.map(lambda i: len(open("keep/file").read()), range(50))))
lock = mp.Lock()
with lock: print("locked")
async def go():
    p = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    return (await p.communicate(b"async"))[0]
print(asyncio.run(go()))
X"#,
    );
}

#[test]
fn pip_installs_a_local_wheel() {
    runs_clean(
        &["python3"],
        r#"python3 - <<'X'
import zipfile
with zipfile.ZipFile("demo-1.0-py3-none-any.whl", "w") as z:
    z.writestr("demo/__init__.py", "answer = 42\n")
    z.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    z.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr("demo-1.0.dist-info/RECORD", "demo/__init__.py,,\ndemo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\ndemo-1.0.dist-info/RECORD,,\n")
X
python3 -m venv venv
venv/bin/python -m pip install -q --no-index --disable-pip-version-check ./demo-1.0-py3-none-any.whl
venv/bin/python -c 'import demo; print(demo.answer)'
echo venv >.gitignore"#,
    );
}

#[test]
fn git_clones_commits_and_keeps_worktrees() {
    runs_clean(
        &["git"],
        r"for i in $(seq 40); do echo $i >f$i; done; git add -A; git commit -qm more
git clone -q . ../ws/open/copy; cd open/copy; git checkout -qb side; echo x >f1; git commit -qam side; git push -q origin side; cd ../..
git worktree add -q ../ws/open/tree side; (cd open/tree; echo y >f2; git commit -qam tree; git log --oneline | wc -l)
git merge -q --no-edit side; git stash list; git gc -q; git fsck --no-progress; git diff --stat HEAD~1 | tail -1; git worktree remove open/tree; rm -rf open/copy",
    );
}

#[test]
fn npm_installs_a_local_tarball() {
    runs_clean(
        &["npm", "node"],
        r#"mkdir -p dep app; cd dep
echo '{"name":"dep","version":"1.0.0","main":"i.js","scripts":{"postinstall":"node p.js"},"files":["i.js","p.js"]}' >package.json
echo 'require("fs").writeFileSync("built","1")' >p.js; echo 'module.exports=require("fs").readFileSync(__dirname+"/built","utf8")' >i.js; npm pack --silent >/dev/null; cd ../app
echo '{"name":"app","version":"1.0.0"}' >package.json
npm install --offline --no-audit --no-fund --silent ../dep/dep-1.0.0.tgz
node -e 'const {Worker}=require("worker_threads"),c=require("child_process");console.log(require("dep"),c.execSync("echo child").toString().trim());new Worker("console.log(1)",{eval:true})'
cd ..; printf 'node_modules\n*.tgz\n' >.gitignore"#,
    );
}

#[test]
fn cargo_builds_a_small_crate() {
    runs_clean(
        &["cargo"],
        r#"mkdir -p c/src; cd c
printf '[package]\nname="c"\nversion="0.1.0"\nedition="2021"\n[workspace]\n' >Cargo.toml
echo 'fn main(){println!("cargo:rerun-if-changed=build.rs");std::fs::write(std::env::var("OUT_DIR").unwrap()+"/v","\"built\"").unwrap();}' >build.rs
echo 'fn main(){println!("{}",include!(concat!(env!("OUT_DIR"),"/v")));} #[test] fn t(){}' >src/main.rs
cargo run -q --offline; cargo test -q --offline >/dev/null; echo target >.gitignore"#,
    );
}

#[test]
fn make_builds_c_in_parallel() {
    runs_clean(
        &["make", "cc"],
        r#"for i in $(seq 12); do echo "int f$i(void){return $i;}" >f$i.c; done
echo '#include <stdio.h>
int f1(void); int main(void){puts(f1()==1?"one":"other");return 0;}' >main.c
printf 'O=$(patsubst %%.c,%%.o,$(wildcard *.c))\nprog: $(O)\n\tcc -o $@ $^\n%%.o: %%.c\n\tcc -c -o $@ $<\n' >Makefile
make -s -j4; ./prog; strip prog; ./prog; printf '*.o\nprog\n' >.gitignore"#,
    );
}

#[test]
fn tar_find_sed_and_their_like() {
    runs_clean(
        &["tar", "find", "sed", "grep"],
        r"mkdir -p t/a/b; for i in $(seq 60); do echo line $i >t/a/b/f$i; done; ln -s a/b t/l; chmod 750 t/a
tar czf t.tgz t; mkdir u; tar xzpf t.tgz -C u; diff -r t u/t; find u -type f -name 'f1*' | sort | head -3; find u -name 'f2*' -delete; find u -type f | wc -l
sed -i s/line/row/ u/t/a/b/f1; cat u/t/a/b/f1; grep -rl line u | wc -l; cp -a t v; mv v w; touch -d 2001-01-01 w/l; rm -rf t u w t.tgz; find . -newer keep/file -name x; mktemp -d >/dev/null; dd if=/dev/zero of=z bs=4k count=8 2>/dev/null; truncate -s 100 z; stat -c %s z; rm z",
    );
}

#[test]
fn sqlite_in_wal_mode() {
    runs_clean(
        &["python3"],
        r#"python3 - <<'X'
import sqlite3, threading
c = sqlite3.connect("open/d.db"); print(c.execute("pragma journal_mode=wal").fetchone())
c.execute("create table t(x)")
def work(n):
    k = sqlite3.connect("open/d.db", timeout=30)
    for i in range(20):
        with k: k.execute("insert into t values(?)", (n * 100 + i,))
    k.close()
ts = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in ts]; [t.join() for t in ts]
print(c.execute("select count(*) from t").fetchone()); c.execute("vacuum"); c.close()
X
rm -f open/d.db*"#,
    );
}

#[test]
fn a_loopback_server_and_its_client() {
    runs_clean(
        &["python3"],
        r#"python3 - <<'X'
import http.server, threading, urllib.request, socket, os
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
s.RequestHandlerClass.log_message = lambda *a: None
threading.Thread(target=s.serve_forever, daemon=True).start()
for _ in range(20): body = urllib.request.urlopen(f"http://127.0.0.1:{s.server_port}/keep/file").read()
print(body)
u = socket.socket(socket.AF_UNIX); u.bind("open/s"); u.listen()
c = socket.socket(socket.AF_UNIX); c.connect("open/s"); a = u.accept()[0]; c.sendall(b"hi"); print(a.recv(9))
d = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "ab"]; d[0].bind(("127.0.0.1", 0)); d[1].sendto(b"dg", d[0].getsockname()); print(d[0].recv(9))
os.unlink("open/s"); s.shutdown()
X"#,
    );
}

#[test]
fn curl_speaks_to_loopback() {
    runs_clean(
        &["curl", "python3"],
        r#"cd keep; python3 -c 'import http.server as h
s=h.HTTPServer(("127.0.0.1",0),h.SimpleHTTPRequestHandler); s.RequestHandlerClass.log_message=lambda *a:None
open("../open/port","w").write(str(s.server_port)+"\n"); s.serve_forever()' &
while ! test -s ../open/port; do sleep 0.05; done; for i in 1 2 3; do curl -sS http://127.0.0.1:$(cat ../open/port)/file; done; kill %1 2>/dev/null || kill $!; wait; rm ../open/port"#,
    );
}

#[test]
fn java_compiles_and_runs() {
    runs_clean(
        &["javac", "java"],
        "echo 'public class A{public static void main(String[] a)throws Exception{var t=new Thread(()->System.out.println(\"thread\"));t.start();t.join();}}' >A.java; javac A.java; java A; rm A.*",
    );
}

#[test]
fn tmux_runs_a_program() {
    runs_clean(
        &["tmux"],
        "export TMUX_TMPDIR=$PWD/open TERM=xterm; tmux -f /dev/null new-session -d -x 80 -y 24 'echo in-tmux >open/said; cat'; i=0; while ! test -s open/said && [ $i -lt 100 ]; do sleep 0.05; i=$((i+1)); done\n\
         tmux send-keys typed Enter; sleep 0.3; tmux capture-pane -p | grep -c typed | sed 's/[1-9]/some/'; cat open/said; tmux kill-server; sleep 0.1; rm -rf open/said open/tmux-*",
    );
}

#[test]
fn less_pages_on_a_terminal() {
    if which("less").is_none() {
        return skipped("less", "it is not installed");
    }
    let world = repository();
    let text: String = (0..500).fold(String::new(), |text, i| text + &format!("line {i}\n"));
    world.write("ws/open/long", text);
    let steps = [
        json!({"expect": "line 20"}),
        json!({"send": "/line 400\n"}),
        json!({"expect": "line 410"}),
        json!({"send": "G"}),
        json!({"expect": "line 499"}),
        json!({"send": "q"}),
    ];
    if let Some((status, transcript)) = talk_under_gait(&world, &["less", "open/long"], &steps) {
        assert_eq!(status, 0, "{transcript}");
        assert!(!transcript.contains("gait: blocked"), "{transcript}");
    }
}
