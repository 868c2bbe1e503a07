//! `apiban.trust_add`, `apiban.trust_del` and `apiban.trust_list`: trust that an operator lends, and all rules.

use std::time::Duration;

use super::page::Page;
use super::{number, text, Arguments, Fault, Reply, Service};
use crate::address::Subnet;
use crate::bans::MAX_TTL;
use crate::shared::requests::Request;
use crate::trust::{NotLent, Rule, NO_END};

/// The longest time that an answer shows, in seconds: numbers have 32 bits there, with a sign.
const LONGEST: u32 = i32::MAX as u32;

fn subnet(arguments: &Arguments) -> Result<Subnet, Fault> {
    let given = arguments.required(0, "ip")?;
    given.parse().map_err(|error| Fault::argument("ip", error))
}

/// `apiban.trust_add ip [ttl] [comment]`. Without a ttl, or with 0, the trust lasts until it is deleted.
pub fn add(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let subnet = subnet(arguments)?;
    let ttl = arguments.number(1, "ttl", 0, 0..=u64::from(MAX_TTL))?;
    let comment = arguments.get(2).unwrap_or_default();
    let now = service.shared().now();
    let end = match ttl {
        0 => NO_END,
        ttl => now + Duration::from_secs(ttl),
    };
    let lent = service.shared().trust.lend(subnet, end, now, comment);
    lent.map_err(|problem| match problem {
        NotLent::TooWide(_) => Fault::argument("ip", format_args!("{subnet}: {problem}")),
        NotLent::Full => Fault {
            code: 507,
            text: problem.to_string(),
        },
    })?;
    service.ask(Request::TrustChanged);
    Ok(Reply::Text(if ttl == 0 {
        format!("Ok. {subnet} is trusted until apiban.trust_del.")
    } else {
        format!("Ok. {subnet} is trusted for {ttl} seconds.")
    }))
}

/// `apiban.trust_del ip`.
pub fn delete(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let subnet = subnet(arguments)?;
    if !service.shared().trust.take_back(subnet) {
        let text = format!("{subnet} has no trust by apiban.trust_add");
        return Err(Fault { code: 404, text });
    }
    service.ask(Request::TrustChanged);
    Ok(Reply::Text(format!(
        "Ok. The trust of {subnet} by apiban.trust_add has ended."
    )))
}

/// `apiban.trust_list [limit] [offset]`: what was lent first, then the other rules, by address.
pub fn list(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let page = Page::asked(arguments, 0)?;
    let trust = &service.shared().trust;
    let now = service.shared().now();
    let mut rules = trust.rules();
    let order = |(subnet, rule): &(Subnet, Rule)| (*rule != Rule::Lent, *subnet);
    Ok(page.of(&mut rules, order, |&(subnet, rule)| {
        let lent = trust.lent();
        let loan = Some(rule).filter(|rule| *rule == Rule::Lent);
        let loan = loan
            .and_then(|_| lent.find(subnet))
            .and_then(|found| lent.entry(found));
        let (end, comment) = match loan {
            Some(loan) => (loan.value, loan.reason),
            None => (trust.end(subnet).unwrap_or(NO_END), String::new()),
        };
        let left = if end == NO_END {
            0
        } else {
            end.seconds_since(now).min(LONGEST)
        };
        vec![
            text("rule", subnet.to_string()),
            text("origin", rule.to_string()),
            number("expires", left),
            text("comment", comment),
        ]
    }))
}
