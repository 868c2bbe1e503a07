//! `apiban.status`.

use super::{cluster, number, text, Arguments, Fault, Fields, Reply, Service, Value};
use crate::config::Mode;
use crate::feed::FeedState;
use crate::firewall::runner::State;
use crate::shared::counters::Counter;
use crate::shared::origin::Origin;
use crate::shared::published::{Gauge, Number, Place, Text};
use crate::statistics::feed_age;

/// `apiban.status`.
pub fn status(service: &Service<'_>, _: &Arguments) -> Result<Reply, Fault> {
    let (shared, config) = (service.shared(), service.config);
    let (prefixes, automatic) = shared.trust.count();
    Ok(Reply::Struct(vec![
        text("version", env!("CARGO_PKG_VERSION")),
        text("kamailio", service.kamailio),
        ("feed", Value::Struct(feed_status(service))),
        (
            "local",
            Value::Struct(vec![
                number("entries", shared.local.len() as u64),
                number("capacity", shared.local.capacity() as u64),
            ]),
        ),
        (
            "trust",
            Value::Struct(vec![
                number("prefixes", prefixes as u64),
                number("automatic", automatic as u64),
                text("last_error", shared.published.text(Text::TrustLastError)),
            ]),
        ),
        ("firewall", Value::Struct(firewall_status(service))),
        ("socket_filter", Value::Struct(filter_status(service))),
        ("cluster", Value::Struct(cluster::status(service))),
        (
            "blocked",
            Value::Struct(
                Origin::ALL
                    .map(|origin| {
                        number(origin.name(), shared.counters.sum(Counter::blocked(origin)))
                    })
                    .to_vec(),
            ),
        ),
        text(
            "mode",
            if config.mode == Mode::Observe {
                "observe"
            } else {
                "enforce"
            },
        ),
        (
            "state",
            Value::Struct(vec![
                text("file", config.state_file.as_str()),
                text("last_error", shared.published.text(Text::StateLastError)),
            ]),
        ),
    ]))
}

fn feed_status(service: &Service<'_>) -> Fields {
    let published = &service.shared().published;
    let offset = service.shared().wall_offset();
    let now = service.shared().now();
    // 0 says that there is none.
    let wall = |time| {
        published
            .time(time)
            .map_or(0, |time| offset.wall(time).get())
    };
    vec![
        text("dataset", service.config.dataset.as_str()),
        number("entries", service.shared().feed.len() as u64),
        text("id", published.text(Text::FeedId)),
        text(
            "state",
            FeedState::from_number(published.number(Number::FeedState)).as_str(),
        ),
        number("last_success", wall(Number::FeedLastSuccess)),
        text("last_error", published.text(Text::FeedLastError)),
        number("next_poll", wall(Number::FeedNextPoll)),
        number("requests", published.number(Number::FeedRequests)),
        number("pages", published.number(Number::FeedPages)),
        number("refused", published.number(Number::FeedRefused)),
        text("control_id", published.text(Text::FeedId)),
        text("waiting_for", published.text(Text::FeedWaitingFor)),
        number("last_success_ago", feed_age(service.shared())),
        number(
            "next_poll_in",
            published
                .time(Number::FeedNextPoll)
                .map_or(0, |time| time.seconds_since(now)),
        ),
    ]
}

fn firewall_status(service: &Service<'_>) -> Fields {
    let backend = match service.config.firewall.facts() {
        Some(facts) => facts.name,
        None => "none",
    };
    let mut fields = vec![text("backend", backend)];
    fields.extend(place_status(service, Place::Firewall));
    fields
}

fn filter_status(service: &Service<'_>) -> Fields {
    let gauge = |gauge| {
        let published = &service.shared().published;
        published.gauge(Place::SocketFilter, gauge)
    };
    let mut fields = place_status(service, Place::SocketFilter);
    fields.extend([
        number("elements", gauge(Gauge::Elements)),
        number("of", gauge(Gauge::Wanted)),
    ]);
    fields
}

/// The fields that every place that drops packets has.
fn place_status(service: &Service<'_>, place: Place) -> Fields {
    let published = &service.shared().published;
    let gauge = |gauge| published.gauge(place, gauge);
    vec![
        text("state", State::from_number(gauge(Gauge::State)).name()),
        number("queued", gauge(Gauge::Queued)),
        number("errors", gauge(Gauge::Errors)),
        number("dropped", gauge(Gauge::Dropped)),
        text("last_error", published.text(place.error())),
    ]
}
