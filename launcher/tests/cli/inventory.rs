//! `gait scout snapshot` and `gait scout diff`.

use super::sandbox::Sandbox;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("src/tools.py", "@tool\ndef read_notes(): pass\n\n@tool()\ndef send_email(to): pass\n");
    sandbox.write("src/.mcp.json", r#"{"mcpServers": {"files": {"command": "x"}}}"#);
    sandbox.write("node_modules/x.py", "@tool\ndef hidden(): pass\n");
    sandbox.write(
        "p.yaml",
        "default_verdict: allow\nrules:\n  - {name: a, effect: block, match: {tool_names: [send_email]}}\n",
    );
    sandbox
}

#[test]
fn snapshots_are_the_same_twice_and_differences_exit_2() {
    let mut sandbox = sandbox();
    for line in [
        "scout snapshot --roots src --out a.json",
        "scout snapshot --roots ./src,src --policy p.yaml --out b.json --coverage-out c.json --json",
        "scout diff a.json b.json",
        "scout snapshot",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
    }
    assert_eq!(sandbox.read("a.json"), sandbox.read("b.json"));
    assert!(!sandbox.read("a.json").contains("hidden"));
    sandbox.write("src/tools.py", "@tool\ndef read_notes(): pass\n@tool\ndef drop_table(): pass\n");
    sandbox.write("src/mcp.yaml", "servers: [");
    assert_eq!(sandbox.gait("scout snapshot --roots src --exclude .mcp.json --out d.json").exit, 0);
    assert_eq!(sandbox.gait("scout diff a.json d.json --out e.json").exit, 2);
    assert_eq!(sandbox.gait("scout diff a.json d.json --json").exit, 2);
    assert!(sandbox.read("e.json").contains("drop_table"));
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn bad_inputs_of_inventories_are_named() {
    let mut sandbox = sandbox();
    let before = sandbox.files();
    for (line, exit) in [
        ("scout snapshot --roots nothing", 6),
        ("scout snapshot --roots src/tools.py", 6),
        ("scout snapshot --roots src --policy nothing.yaml", 6),
        ("scout snapshot --roots src --coverage-out c.json", 6),
        ("scout snapshot --roots src --out p.yaml/x.json", 1),
        ("scout diff", 6),
        ("scout diff src/.mcp.json src/.mcp.json", 6),
        ("scout diff nothing.json nothing.json", 6),
        ("scout diff p.yaml p.yaml", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    assert_eq!(sandbox.files(), before);
    insta::assert_snapshot!(sandbox.story());
}
