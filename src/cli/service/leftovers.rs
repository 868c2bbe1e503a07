//! What APIBAN's own clients left in the firewall: found and reported, never removed.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::messages;

/// The name that all of those clients use.
const NAME: &str = "APIBAN";

/// Tells the lines that remove what those clients left.
pub fn report() {
    for tool in ["iptables", "ip6tables"] {
        if has_chain(tool) {
            messages::warning(&format!(
                "the chain {NAME} of another APIBAN client is there and no longer needed; remove it with: \
                 {tool} -D INPUT -j {NAME}; {tool} -D FORWARD -j {NAME}; {tool} -F {NAME}; {tool} -X {NAME}"
            ));
        }
    }
    for (family, table) in sets() {
        messages::warning(&format!(
            "the set {NAME} of another APIBAN client is there and no longer needed; remove the rules that \
             name it, then: nft delete set {family} {table} {NAME}"
        ));
    }
}

/// What a program prints; `None` if it is not there or does not succeed.
fn answer(program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then_some(output.stdout)
}

fn has_chain(tool: &str) -> bool {
    answer(tool, &["-S", NAME]).is_some()
}

/// Family and table of each nft set of that name.
fn sets() -> Vec<(String, String)> {
    let listed = answer("nft", &["-j", "-t", "list", "sets"]);
    let json: Option<Value> = listed.and_then(|text| serde_json::from_slice(&text).ok());
    let objects = json
        .as_ref()
        .and_then(|json| json["nftables"].as_array())
        .map(Vec::as_slice)
        .unwrap_or_default();
    objects
        .iter()
        .map(|object| &object["set"])
        .filter(|set| set["name"] == NAME)
        .filter_map(|set| {
            let text = |key: &str| set[key].as_str().map(str::to_owned);
            Some((text("family")?, text("table")?))
        })
        .collect()
}
