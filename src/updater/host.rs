//! What the updater needs from the program around it, and from the client of the service.

use std::net::IpAddr;

use super::Discovered;
use crate::feed::client;
use crate::shared::events::{Event, EventKind};

/// What the program around the updater knows of addresses.
pub trait Discovery {
    /// True for an address that this server listens on.
    fn is_own(&self, ip: IpAddr) -> bool;
    /// The addresses that the program found by itself, as far as the parameters trust them.
    fn discovered(&self) -> Discovered;
}

impl<T: Discovery> Discovery for &T {
    fn is_own(&self, ip: IpAddr) -> bool {
        (**self).is_own(ip)
    }

    fn discovered(&self) -> Discovered {
        (**self).discovered()
    }
}

/// Takes the events of the updater.
pub trait EventSink {
    /// True if the program has a use for such events.
    fn wants(&self, kind: EventKind) -> bool;
    /// Passes an event on. Must not block.
    fn raise(&self, event: &Event);
    /// Wakes the process of the cluster, if there is one.
    fn wake_cluster(&self) {}
}

impl<T: EventSink> EventSink for &T {
    fn wants(&self, kind: EventKind) -> bool {
        (**self).wants(kind)
    }

    fn raise(&self, event: &Event) {
        (**self).raise(event);
    }

    fn wake_cluster(&self) {
        (**self).wake_cluster();
    }
}

/// Exchanges with the service. They take place elsewhere: neither call waits.
pub trait Exchange {
    /// Begins one. The engine never has two at a time.
    fn start(&mut self, request: client::Request);
    /// The result of the exchange that was begun last, once it is there.
    fn try_result(&mut self) -> Option<Result<client::Response, client::FetchError>>;
}

impl Exchange for client::Worker {
    fn start(&mut self, request: client::Request) {
        client::Worker::start(self, request);
    }

    fn try_result(&mut self) -> Option<Result<client::Response, client::FetchError>> {
        client::Worker::try_result(self)
    }
}
