//! The firewall that the configuration names, for use without a thread of its own.

use crate::cli::config::Settings;
use crate::cli::exit::Failure;
use crate::config::FirewallKind;
use crate::firewall::ipset::Ipset;
use crate::firewall::iptables_api::IptablesApi;
use crate::firewall::nft::Nft;
use crate::firewall::{later_ends, Element, Error, Firewall, Scope};
use crate::shared::Shared;

/// The backend; `None` if there is none.
pub fn make(settings: &Settings) -> Result<Option<Box<dyn Firewall>>, Failure> {
    let config = &settings.config;
    let made: Result<Box<dyn Firewall>, Error> = match config.firewall {
        _ if settings.own.ipset => Ok(Box::new(Ipset::new(&settings.own.ipset_name))),
        FirewallKind::None => return Ok(None),
        FirewallKind::Nft => Nft::new(config.nft_settings(&[])).map(|nft| Box::new(nft) as _),
        FirewallKind::IptablesApi => {
            IptablesApi::new(config.firewall_url.as_str()).map(|api| Box::new(api) as _)
        }
    };
    made.map(Some).map_err(|error| failure(&error))
}

/// What tells one firewall from another: two programs must not keep the same one.
pub fn identity(settings: &Settings) -> String {
    let config = &settings.config;
    match config.firewall {
        _ if settings.own.ipset => format!("ipset {}", settings.own.ipset_name),
        FirewallKind::None => "none".to_owned(),
        FirewallKind::Nft => format!("nft {}", config.nft_table),
        FirewallKind::IptablesApi => format!("iptables-api {}", config.firewall_url),
    }
}

/// Everything that belongs into the firewall, with the time that each ban has left.
pub fn wanted(shared: &Shared, scope: Scope) -> Vec<Element> {
    let now = shared.now();
    let mut elements = Vec::new();
    let tables = [
        (scope.has_feed(), &shared.feed),
        (scope.has_local(), &shared.local),
    ];
    for (wanted, table) in tables {
        table.for_each(|entry| {
            if wanted && entry.value > now {
                elements.push(Element {
                    subnet: entry.subnet,
                    seconds_left: entry.value - now,
                    hits: entry.hits,
                });
            }
        });
    }
    later_ends(elements)
}

/// Makes the firewall equal to `wanted`. What is in force and wanted stays in force meanwhile.
pub fn bring_up_to_date(backend: &mut dyn Firewall, wanted: &[Element]) -> Result<(), Error> {
    let rest = backend.reconcile(wanted)?;
    for batch in rest.chunks(backend.batch_size().max(1)) {
        backend.apply(batch)?;
    }
    Ok(())
}

/// The failure of a command, with the remedy.
pub fn failure(error: &Error) -> Failure {
    Failure::trouble(match error {
        Error::Permission(what) => format!(
            "firewall: {what}: CAP_NET_ADMIN is missing; run this as root, or grant it in the unit with \
             AmbientCapabilities=CAP_NET_ADMIN. The firewall is as it was"
        ),
        error => format!("firewall: {error}"),
    })
}
