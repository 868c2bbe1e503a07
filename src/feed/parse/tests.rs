use proptest::prelude::*;

use super::*;

fn page(status: u16, body: &str) -> Page {
    match parse(status, None, body.as_bytes()) {
        Answer::Page(page) => page,
        other => panic!("{body}: {other:?}"),
    }
}

fn is_garbage(status: u16, body: &str) -> bool {
    matches!(parse(status, None, body.as_bytes()), Answer::Garbage(_))
}

#[test]
fn pages_in_every_spelling() {
    let two = page(
        200,
        r#"{"ipaddress":["192.0.2.1","2001:db8::1"],"ID":"1795300250"}"#,
    );
    assert_eq!(two.addresses.len(), 2);
    assert_eq!(two.id.as_str(), "1795300250");
    let one = page(
        200,
        r#"{"ID":1795300250,"ipaddress":"192.0.2.0/24","x":[{}]}"#,
    );
    assert_eq!(one.addresses[0].to_string(), "192.0.2.0/24");
    assert_eq!(one.id.as_str(), "1795300250");
    let none = page(200, r#"{"ipaddress":[],"ID":"5"}"#);
    assert_eq!(none.items(), 0);
}

#[test]
fn items_that_are_no_address_are_counted() {
    let body = r#"{"ipaddress":["192.0.2.1","<b>\n",7,null,["x"],{"a":1},1.5,-1,true],"ID":"9"}"#;
    let page = page(200, body);
    assert_eq!((page.addresses.len(), page.skipped), (1, 8));
    assert_eq!(page.items(), 9);
    assert_eq!(page.example.as_deref(), Some("<b>"));
}

#[test]
fn nothing_newer_in_every_spelling() {
    for status in [200, 400, 404, 408] {
        for body in [
            r#"{"ipaddress":["no new bans"],"ID":"none"}"#,
            r#"{"ipaddress":"no new bans","ID":"none"}"#,
            r#"{"ID":"none"}"#,
            r#"{"ipaddress":["No new bans"],"ID":"1795300250"}"#,
        ] {
            assert_eq!(parse(status, None, body.as_bytes()), Answer::Complete);
        }
    }
}

#[test]
fn a_rate_limited_key_is_not_a_bad_key() {
    let limited = br#"{"ipaddress":"rate limit exceeded","ID":"unauthorized"}"#;
    let expected = Answer::RateLimited {
        retry_after: Some(7),
    };
    for status in [429, 403, 200] {
        assert_eq!(parse(status, Some(7), limited), expected);
    }
    assert_eq!(parse(429, Some(7), b"<html>"), expected);
    let bad = br#"{"ipaddress":"none","ID":"unauthorized"}"#;
    for status in [403, 401, 200, 400] {
        assert_eq!(parse(status, None, bad), Answer::Unauthorized);
    }
    assert_eq!(parse(403, None, b""), Answer::Unauthorized);
    assert_eq!(
        parse(429, None, bad),
        Answer::RateLimited { retry_after: None }
    );
}

#[test]
fn trouble_at_the_service() {
    let expected = Answer::ServerError {
        status: 503,
        retry_after: Some(30),
    };
    assert_eq!(parse(503, Some(30), br#"{"ID":"none"}"#), expected);
}

#[test]
fn everything_else_is_garbage() {
    for (status, body) in [
        (200, ""),
        (200, "  \n"),
        (200, "<html><body>Sign in</body></html>"),
        (200, "{}"),
        (400, "{}"),
        (200, "[]"),
        (200, "null"),
        (200, r#"{"ipaddress":["192.0.2.1","192.0"#),
        (200, r#"{"ipaddress":["192.0.2.1"]}"#),
        (200, r#"{"ID":"5"}"#),
        (200, r#"{"ipaddress":null,"ID":"5"}"#),
        (200, r#"{"ipaddress":["192.0.2.1"],"ID":"none"}"#),
        (200, r#"{"ipaddress":["192.0.2.1"],"ID":"../x"}"#),
        (
            200,
            r#"{"ipaddress":["192.0.2.1"],"ID":"123456789012345678901"}"#,
        ),
        (200, r#"{"ipaddress":["192.0.2.1"],"ID":-5}"#),
        (
            200,
            r#"{"ipaddress":["192.0.2.1"],"ipaddress":[],"ID":"5"}"#,
        ),
        (400, r#"{"ipaddress":["192.0.2.1"],"ID":"5"}"#),
        (302, ""),
        (404, "not found"),
    ] {
        assert!(is_garbage(status, body), "{status} {body}");
    }
    assert!(is_garbage(
        200,
        &format!("{{\"ID\":{}1{}}}", "[".repeat(9999), "]".repeat(9999))
    ));
}

#[test]
fn limits() {
    let body = |n: usize| {
        let items: Vec<String> = (0..n)
            .map(|i| format!("\"10.1.{}.{}\"", i / 256, i % 256))
            .collect();
        format!("{{\"ipaddress\":[{}],\"ID\":\"5\"}}", items.join(","))
    };
    assert_eq!(page(200, &body(MAX_ADDRESSES)).items(), MAX_ADDRESSES);
    assert!(is_garbage(200, &body(MAX_ADDRESSES + 1)));
    let long = format!("{}{}", body(1), " ".repeat(MAX_BODY));
    assert!(is_garbage(200, &long));
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just("\"none\"".to_owned()),
        Just("\"no new bans\"".to_owned()),
        Just("\"rate limit exceeded\"".to_owned()),
        Just("\"unauthorized\"".to_owned()),
        any::<std::net::IpAddr>().prop_map(|ip| format!("\"{ip}\"")),
        "[0-9]{0,22}".prop_map(|digits| format!("\"{digits}\"")),
        ".{0,80}".prop_map(|text| serde_json::Value::String(text).to_string()),
    ];
    let items = prop::collection::vec(leaf.clone(), 0..40);
    let value = prop_oneof![
        leaf,
        items.prop_map(|items| format!("[{}]", items.join(",")))
    ];
    (value.clone(), value).prop_map(|(ips, id)| format!("{{\"ipaddress\":{ips},\"ID\":{id}}}"))
}

proptest! {
    #[test]
    fn any_bytes_are_survived(status in 100u16..600, body in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = parse(status, None, &body);
    }

    #[test]
    fn any_json_is_survived_and_what_comes_out_is_safe(status in prop::sample::select(vec![200u16, 400, 404]), body in json(), cut in any::<prop::sample::Index>()) {
        match parse(status, None, body.as_bytes()) {
            Answer::Page(page) => {
                prop_assert!(page.items() <= MAX_ADDRESSES);
                prop_assert!(ControlId::new(page.id.as_str()).is_ok());
                prop_assert!(page.example.is_none_or(|text| text.chars().count() <= 64));
            }
            Answer::Garbage(reason) => prop_assert!(reason.len() < 120),
            _ => {}
        }
        let cut = cut.index(body.len());
        let _ = parse(status, None, &body.as_bytes()[..cut]);
    }
}
