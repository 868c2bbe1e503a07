//! The commands through kamcli, which speaks JSON-RPC over a socket.

use std::process::Command;

use apiban_testing::kamailio::Kamailio;

/// Runs `kamcli jsonrpc ARGUMENTS` against this Kamailio; returns what it prints.
fn kamcli(kamailio: &Kamailio, arguments: &[&str]) -> String {
    let dir = kamailio.dir();
    let config = dir.join("kamcli.ini");
    let text = format!(
        "[main]\n[apiparams]\n[ctl]\ntype=jsonrpc\n[jsonrpc]\ntransport=socket\nsrvaddr={0}/rpc\n\
         rcvaddr={0}/kamcli-reply\npath=none\nrplnamebase=none\nrpldir=none\noutformat=json\n",
        dir.display()
    );
    std::fs::write(&config, text).expect("kamcli.ini");
    let output = Command::new("timeout")
        .args(["20", "kamcli", "--no-default-configs", "-c"])
        .arg(&config)
        .arg("jsonrpc")
        .args(arguments)
        .output()
        .expect("kamcli (apt-get install kamcli)");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn commands_answer_through_kamcli() {
    let kamailio = Kamailio::builder().start();
    let status = kamcli(&kamailio, &["apiban.status"]);
    assert!(status.contains("\"state\": \"disabled\""), "{status}");
    let blocked = kamcli(&kamailio, &["apiban.block", "192.0.2.7", "60", "scan"]);
    assert!(
        blocked.contains("192.0.2.7 is banned for 60 seconds"),
        "{blocked}"
    );
    let list = kamcli(&kamailio, &["apiban.list", "local"]);
    assert!(
        list.contains("\"ip\": \"192.0.2.7\"") && list.contains("\"reason\": \"scan\""),
        "{list}"
    );
    let fault = kamcli(&kamailio, &["apiban.check", "nonsense"]);
    assert!(fault.contains("is not an IP address"), "{fault}");
}
