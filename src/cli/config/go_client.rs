//! The Go clients' `config.json` as it is: every key in either spelling, `set` or `dataset`.
//!
//! Their cursor (`lkid`) and time of the last flush are of no use here: without the list that belongs to the
//! cursor, a client that begins there knows nothing of what came before.

use std::path::Path;

use serde_json::{Map, Value};

use super::{about, at_line, Origin, Settings};
use crate::cli::exit::Failure;
use crate::config::{parameter, FirewallKind, RawValue};

/// Takes over what a Go client was told.
pub fn parse(mut settings: Settings, path: &Path, text: &str) -> Result<Settings, Failure> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        // Not the library's words: they may quote the file, and with it the key.
        at_line(
            path,
            error.line().max(1),
            "not a JSON object; expected {\"apikey\":\"...\"}",
        )
    })?;
    settings.origin = Origin::GoClient(path.to_owned());
    // These clients have nothing but a firewall.
    settings.config.firewall = FirewallKind::Nft;
    for (name, value) in &object {
        let ours = match name.to_ascii_lowercase().as_str() {
            "apikey" => "api_key",
            "set" | "dataset" => "dataset",
            _ => continue,
        };
        let Value::String(value) = value else {
            return Err(about(path, &format!("\"{ours}\": not a string")));
        };
        let parameter = parameter(ours).ok_or_else(|| about(path, ours))?;
        settings
            .config
            .set(parameter, RawValue::Text(value))
            .map_err(|error| about(path, &error.to_string()))?;
    }
    settings
        .config
        .check()
        .map_err(|error| about(path, &error.to_string()))?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Dataset;

    fn read(text: &str) -> Result<Settings, String> {
        parse(Settings::default(), Path::new("/x/config.json"), text)
            .map_err(|failure| failure.text().unwrap_or_default().to_owned())
    }

    #[test]
    fn both_spellings_of_all_clients() {
        for text in [
            r#"{"apikey":"k1","lkid":"100","version":"1.0","set":"all","flush":"200"}"#,
            r#"{"APIKEY":"k1","LKID":"1795300250","VERSION":"1.0","SET":"all","FLUSH":"200"}"#,
            r#"{"ApiKey":"k1","dataset":"all","setname":"APIBAN","flush":"100"}"#,
            r#"{"apikey":"k1","set":"all","jail":"asterisk-iptables"}"#,
        ] {
            let settings = read(text).unwrap();
            assert_eq!(settings.config.api_key.clone().unwrap().expose(), "k1");
            assert_eq!(settings.config.dataset, Dataset::All);
            assert_eq!(settings.config.firewall, FirewallKind::Nft);
        }
    }

    #[test]
    fn errors_name_the_file_and_never_the_key() {
        for (text, expected) in [
            (
                "{\"apikey\":\"secret\",\n}",
                "/x/config.json:2: not a JSON object",
            ),
            (
                r#"{"apikey":"secret","set":"ftp"}"#,
                "/x/config.json: parameter \"dataset\"",
            ),
            (
                r#"{"apikey":"se cret"}"#,
                "/x/config.json: parameter \"api_key\"",
            ),
            (
                r#"{"apikey":7}"#,
                "/x/config.json: \"api_key\": not a string",
            ),
        ] {
            let error = read(text).map(|_| ()).unwrap_err();
            assert!(
                error.starts_with(expected) && !error.contains("cret"),
                "{error}"
            );
        }
    }
}
