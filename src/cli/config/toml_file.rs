//! `apiban.toml`: one line a parameter, with the names of the module.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::Spanned;

use super::{about, at_line, Origin, Settings};
use crate::cli::exit::Failure;
use crate::config::{parameter, Config, ConfigError, Kind, Parameter, RawValue};
use crate::firewall::ports::PortChoice;

/// Longest name that goes into the name of an ipset: the kernel allows 31 characters, and a family and the
/// name of the set that is being filled are appended.
const MAX_IPSET_NAME: usize = 20;

/// Takes every parameter of the file over.
pub fn parse(mut settings: Settings, path: &Path, text: &str) -> Result<Settings, Failure> {
    let line_of = |span: Range<usize>| 1 + text[..span.start].matches('\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, line_of);
        let problem = error.message().replace('\n', ", ");
        at_line(path, line, &format!("{problem}; expected NAME = VALUE"))
    })?;
    settings.origin = Origin::Toml(path.to_owned());
    // A table of the parser is in alphabetical order; what is told first is what stands first.
    let mut given: Vec<_> = table.get_ref().iter().collect();
    given.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in &given {
        let line = line_of(name.span());
        set(&mut settings, name.get_ref(), value).map_err(|text| at_line(path, line, &text))?;
    }
    let checked = settings.config.check();
    let checked = checked.and_then(|()| needs_no_kamailio(&settings.config));
    checked.map_err(|error| {
        let text = error.to_string();
        let named = |name: &str| text.contains(&format!("\"{name}\""));
        match given.iter().find(|(name, _)| named(name.get_ref())) {
            Some((name, _)) => at_line(path, line_of(name.span()), &text),
            None => about(path, &text),
        }
    })?;
    Ok(settings)
}

/// Refuses what only a Kamailio can do: nothing would come of it here, and nobody would be told.
fn needs_no_kamailio(config: &Config) -> Result<(), ConfigError> {
    let refused = |parameter, problem: &str, accepted: &str| {
        Err(ConfigError::new(parameter, problem, accepted))
    };
    if config.socket_filter {
        return refused(
            "socket_filter",
            "there are no sockets of a Kamailio here",
            "0",
        );
    }
    if config.enable_dmq {
        return refused(
            "enable_dmq",
            "there is no Kamailio here whose bus could be used",
            "0",
        );
    }
    if config.firewall_ports == PortChoice::Sip {
        return refused(
            "firewall_ports",
            "there is no Kamailio here whose ports \"sip\" could mean",
            "all, or ports and ranges such as 5060,5061,10000-20000",
        );
    }
    Ok(())
}

fn set(settings: &mut Settings, name: &str, value: &Spanned<DeValue<'_>>) -> Result<(), String> {
    match (name, value.get_ref()) {
        ("firewall", DeValue::String(text)) if text == "ipset" => {
            settings.own.ipset = true;
            return Ok(());
        }
        ("ipset_name", DeValue::String(text)) => return set_ipset_name(settings, text),
        ("feed_keys_file", DeValue::String(text)) if text.starts_with('/') => {
            settings.own.feed_keys_file = text.to_string();
            return Ok(());
        }
        ("feed_keys_file", _) => {
            return Err("parameter \"feed_keys_file\": accepted: an absolute path".into())
        }
        ("feed_rate_limit", DeValue::Integer(number)) => {
            let limit = number.as_str().parse::<u32>().ok();
            settings.own.feed_rate_limit = limit
                .filter(|limit| *limit <= 1_000_000_000)
                .ok_or("parameter \"feed_rate_limit\": accepted: 0 to 1000000000")?;
            return Ok(());
        }
        _ => {}
    }
    let Some(parameter) = parameter(name) else {
        return Err(format!(
            "parameter \"{}\" is unknown; the names are those of the module's parameters, \
             and ipset_name, feed_keys_file, feed_rate_limit",
            crate::quote::printable(name)
        ));
    };
    set_shared(settings, parameter, value.get_ref())
}

/// A parameter that the module has too.
fn set_shared(
    settings: &mut Settings,
    parameter: &Parameter,
    value: &DeValue<'_>,
) -> Result<(), String> {
    let is_number = matches!(parameter.kind, Kind::Int { .. });
    let config = &mut settings.config;
    let given = match value {
        DeValue::String(text) => RawValue::Text(text),
        DeValue::Boolean(on) if is_number => RawValue::Int(i64::from(*on)),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            let number = i64::from_str_radix(digits, number.radix()).map_err(|_| {
                format!("parameter \"{}\": the number is too large", parameter.name)
            })?;
            RawValue::Int(number)
        }
        DeValue::Array(values) => {
            for value in values.iter() {
                if matches!(value.get_ref(), DeValue::Array(_)) {
                    return Err(format!(
                        "parameter \"{}\": a list in a list",
                        parameter.name
                    ));
                }
                set_shared(settings, parameter, value.get_ref())?;
            }
            return Ok(());
        }
        _ => {
            return Err(format!(
                "parameter \"{}\": neither a number nor a string; accepted: {}",
                parameter.name,
                parameter.accepted()
            ))
        }
    };
    config
        .set(parameter, given)
        .map_err(|error| error.to_string())
}

fn set_ipset_name(settings: &mut Settings, text: &str) -> Result<(), String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !plain || text.is_empty() || text.len() > MAX_IPSET_NAME {
        return Err(format!(
            "parameter \"ipset_name\": accepted: 1 to {MAX_IPSET_NAME} letters, digits, _ . -"
        ));
    }
    settings.own.ipset_name = text.to_owned();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Dataset;

    fn read(text: &str) -> Result<Settings, String> {
        parse(Settings::default(), Path::new("/x/apiban.toml"), text)
            .map_err(|failure| failure.text().unwrap_or_default().to_owned())
    }

    #[test]
    fn the_modules_names_and_values() {
        let settings = read(
            "# ours\napi_key_file = \"/k\"\ndataset = 'all'\npoll_interval = 60\n\
             trust = [\"192.0.2.1\", \"192.0.2.2 192.0.2.3\"]\ntrust_self = false\n",
        )
        .unwrap();
        assert_eq!(settings.config.api_key_file, "/k");
        assert_eq!(settings.config.dataset, Dataset::All);
        assert_eq!(settings.config.poll_interval, 60);
        assert_eq!(settings.config.trust.rules.len(), 3);
        assert!(!settings.config.trust_self);
    }

    #[test]
    fn errors_name_file_line_and_remedy() {
        for (text, expected) in [
            (
                "\npoll_interval = 0\n",
                "/x/apiban.toml:2: parameter \"poll_interval\": value 0 is out of range; accepted: 1 to 86400",
            ),
            (
                "a = 1\n",
                "/x/apiban.toml:1: parameter \"a\" is unknown; the names are those",
            ),
            ("dataset = \"all\"\napi_version = 1\n", "/x/apiban.toml:1: parameter \"dataset\""),
            ("trust = [\"x\"]\n", "/x/apiban.toml:1: parameter \"trust\""),
            ("dataset \"all\"\n", "/x/apiban.toml:1: "),
            ("\n\ndataset = \"sip\"\ndataset = \"sip\"\n", "/x/apiban.toml:4: duplicate key"),
            ("poll_interval = 99999999999999999999\n", "/x/apiban.toml:1: parameter \"poll_interval\""),
            ("ipset_name = \"a b\"\n", "/x/apiban.toml:1: parameter \"ipset_name\""),
            ("\nsocket_filter = 1\n", "/x/apiban.toml:2: parameter \"socket_filter\": there are no sockets"),
            ("enable_dmq = true\n", "/x/apiban.toml:1: parameter \"enable_dmq\": there is no Kamailio"),
            (
                "firewall = \"nft\"\nfirewall_ports = \"sip\"\n",
                "/x/apiban.toml:2: parameter \"firewall_ports\": there is no Kamailio here",
            ),
        ] {
            let error = read(text).map(|_| ()).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = read("api_key = \"se cret\"\n").map(|_| ()).unwrap_err();
        assert!(!error.contains("cret"), "{error}");
    }
}
