//! Parameters: what is taken, what is refused and with which words.

use super::*;

fn set(name: &str, given: RawValue<'_>) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    config.set(parameter(name).unwrap(), given)?;
    config.check()?;
    Ok(config)
}

#[test]
fn numbers_are_bounded_and_the_error_says_all() {
    assert_eq!(
        set("poll_interval", RawValue::Int(1))
            .unwrap()
            .poll_interval,
        1
    );
    let error = set("poll_interval", RawValue::Int(0))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "parameter \"poll_interval\": value 0 is out of range; accepted: 1 to 86400"
    );
    let error = set("block_ttl", RawValue::Text("ten"))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"block_ttl\": value \"ten\" is not a whole number"),
        "{error}"
    );
}

#[test]
fn a_number_in_quotes_is_a_number() {
    let config = set("poll_interval", RawValue::Text(" 60 ")).unwrap();
    assert_eq!(config.poll_interval, 60);
    let error = set("poll_interval", RawValue::Text("0")).map(|_| ());
    assert_eq!(
        error.unwrap_err().to_string(),
        "parameter \"poll_interval\": value \"0\" is out of range; accepted: 1 to 86400"
    );
}

#[test]
fn every_default_is_accepted_and_an_alias_has_that_of_its_parameter() {
    for row in PARAMETERS {
        assert!(!row.help.is_empty(), "{}", row.name);
        if let Some(default) = row.default {
            let taken = Config::default().set(row, default);
            assert!(taken.is_ok(), "{}: {taken:?}", row.name);
        }
        if let Some(name) = row.alias_of {
            let of = parameter(name).unwrap();
            assert_eq!(format!("{:?}", row.default), format!("{:?}", of.default));
        }
    }
    let config = set("full_fetch_interval", RawValue::Int(7)).unwrap();
    assert_eq!(config.resync_interval, 7);
}

#[test]
fn every_number_refuses_what_is_beyond_its_ends() {
    for parameter in PARAMETERS {
        if let Kind::Int { min, max, .. } = parameter.kind {
            let mut config = Config::default();
            assert!(
                config.set(parameter, RawValue::Int(min)).is_ok(),
                "{}",
                parameter.name
            );
            assert!(
                config.set(parameter, RawValue::Int(max)).is_ok(),
                "{}",
                parameter.name
            );
            assert!(
                config.set(parameter, RawValue::Int(min - 1)).is_err(),
                "{}",
                parameter.name
            );
            assert!(
                config.set(parameter, RawValue::Int(max + 1)).is_err(),
                "{}",
                parameter.name
            );
        }
    }
}

#[test]
fn words_are_checked() {
    assert_eq!(
        set("mode", RawValue::Text("observe")).unwrap().mode,
        Mode::Observe
    );
    for (name, bad) in [
        ("mode", "enforced"),
        ("dataset", "sips"),
        ("api_url", "https://apiban.org:99999/api"),
        ("firewall_url", "http://h:/"),
        ("firewall", "pf"),
        ("firewall_scope", ""),
        ("api_url", "apiban.org"),
        ("api_url", "ftp://apiban.org"),
        ("firewall_url", "https//x"),
        ("nft_table", "a b"),
        ("nft_table", ""),
        ("nft_hook", "forward"),
        ("firewall_ports", "ssh"),
        ("firewall_ports", "5060,"),
        ("trust", "192.0.2.0/40"),
        ("api_key", "a b"),
        ("state_file", "relative/path"),
        ("trust_file", "relative"),
    ] {
        let error = set(name, RawValue::Text(bad))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(name) && error.contains("accepted: "),
            "{error}"
        );
    }
}

#[test]
fn trust_is_repeatable() {
    let mut config = Config::default();
    for text in ["192.0.2.1, 192.0.2.2", "2001:db8::/32"] {
        config
            .set(parameter("trust").unwrap(), RawValue::Text(text))
            .unwrap();
    }
    assert_eq!(config.trust.rules.len(), 3);
}

#[test]
fn a_key_is_never_repeated() {
    let error = set("api_key", RawValue::Text("se cret"))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(!error.contains("cret"), "{error}");
}

#[test]
fn contradictions_are_refused() {
    let mut config = Config {
        api_version: ApiVersion::V1,
        dataset: Dataset::Http,
        ..Config::default()
    };
    assert!(config
        .check()
        .unwrap_err()
        .to_string()
        .contains("\"dataset\""));
    config = Config {
        firewall: FirewallKind::IptablesApi,
        firewall_ports: PortChoice::Sip,
        ..Config::default()
    };
    assert!(config
        .check()
        .unwrap_err()
        .to_string()
        .contains("\"firewall_ports\""));
    config = Config {
        api_key: Key::new("ab").ok(),
        api_key_file: "/b".into(),
        ..Config::default()
    };
    assert!(config
        .check()
        .unwrap_err()
        .to_string()
        .contains("\"api_key_file\""));
}

#[test]
fn a_wrong_word_of_a_trust_list_stands_in_the_error_once() {
    let error = |text| {
        set("trust", RawValue::Text(text))
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let alone = error("sip.carrier.example");
    assert_eq!(alone.matches("sip.carrier.example").count(), 1, "{alone}");
    assert!(alone.contains("names are not resolved"), "{alone}");
    let second = error("192.0.2.1, 192.0.2.1-192.0.2.9");
    assert!(
        second.contains("is wrong: \"192.0.2.1-192.0.2.9\" is not an IP address or prefix"),
        "{second}"
    );
}

#[test]
fn what_does_nothing_is_named() {
    let mut config = Config::default();
    assert_eq!(config.without_effect(), Vec::<String>::new());
    for (name, value) in [
        ("firewall_ports", "sip"),
        ("nft_hook", "input"),
        ("nft_table", "mine"),
        ("firewall_url", "http://192.0.2.1:8082"),
        ("cluster_secret_file", "/secret"),
    ] {
        config
            .set(parameter(name).unwrap(), RawValue::Text(value))
            .unwrap();
        let said = config.without_effect().join("\n");
        assert!(
            said.contains(&format!("\"{name}\" does nothing without ")),
            "{said}"
        );
    }
    config.firewall = FirewallKind::Nft;
    config.enable_dmq = true;
    assert_eq!(
        config.without_effect(),
        ["parameter \"firewall_url\" does nothing without firewall \"iptables-api\""]
    );
}
