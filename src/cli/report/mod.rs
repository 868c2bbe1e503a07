//! `apiban report`: what the list says of itself.
//!
//! [`figures`] counts, [`geo`] asks the databases of countries and operators, [`history`] remembers what no longer is in
//! the list, [`html`] draws.

mod figures;
mod geo;
mod history;
mod html;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::args::{Part, ReportOptions, Selection};
use super::config::Settings;
use super::exit::{Exit, Failure};
use super::export::file;
use super::lines;
use super::listing::{self, Listing};
use super::messages;
use super::times;
use figures::Figures;
use history::History;

/// Prints the figures, or writes them as a page.
pub fn run(settings: &Settings, options: &ReportOptions, json: bool) -> Result<Exit, Failure> {
    let selection = Selection {
        source: Part::Feed,
        ..Selection::default()
    };
    let listing = Listing::read(settings, selection)?;
    let path = history_path(settings)?;
    let mut history = History::read(&path)?;
    let ttl = Duration::from_secs(settings.config.feed_ttl.into());
    if history.learn(&listing.items, ttl) {
        // The figures of today are right all the same.
        if let Err(failure) = history.write(&path) {
            messages::warning(failure.text().unwrap_or_default());
        }
    }
    let places = geo::places(&options.geo, &listing.items)?;
    let figures = Figures::of(&listing, &history, places, ttl, options.days);
    if let Some(page) = &options.html {
        file::replace(page, html::page(&figures).as_bytes())?;
    }
    if json {
        lines::json(&figures)?;
    } else if options.html.is_none() {
        let mut out = lines::stdout();
        out.write_all(in_words(&figures).as_bytes())?;
        out.flush()?;
    }
    Ok(Exit::Ok)
}

/// `STATE_FILE.history`.
fn history_path(settings: &Settings) -> Result<PathBuf, Failure> {
    let mut name = listing::state_path(settings)?.into_os_string();
    name.push(".history");
    Ok(PathBuf::from(name))
}

fn in_words(figures: &Figures) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "{} addresses listed at {}; {} new since yesterday\n",
        figures.listed,
        times::point(figures.at),
        figures.new_since_yesterday
    );
    let _ = writeln!(
        text,
        "The ten largest /24 networks hold {:.1} % of the list.\n\nListed a day:",
        figures.top_ten_share
    );
    let most = figures.days.iter().map(|day| day.listed).max().unwrap_or(0);
    for day in &figures.days {
        let length = (day.listed * 40).checked_div(most).unwrap_or(0);
        let bar = "#".repeat(usize::try_from(length).unwrap_or(0));
        let _ = writeln!(text, "  {}  {:>6}  {bar}", day.date, day.listed);
    }
    for (title, networks) in [
        ("Largest /16 networks now", &figures.networks_16),
        ("Largest /24 networks now", &figures.networks_24),
        ("Most active /16 networks ever", &figures.ever_16),
        ("Most active /24 networks ever", &figures.ever_24),
    ] {
        let _ = writeln!(text, "\n{title}:");
        for network in networks {
            let _ = writeln!(text, "  {:<20} {:>6}", network.network, network.addresses);
        }
    }
    let hit_us = &figures.hit_us;
    let _ = writeln!(
        text,
        "\n{} of them sent {} packets to this host{}",
        hit_us.addresses,
        hit_us.packets,
        if hit_us.top.is_empty() { "." } else { ":" }
    );
    for hitter in &hit_us.top {
        let _ = writeln!(text, "  {:<20} {:>6}", hitter.ip, hitter.packets);
    }
    for (title, counts) in [
        ("Countries", &figures.countries),
        ("Operators", &figures.operators),
    ] {
        if let Some(counts) = counts {
            let _ = writeln!(text, "\n{title}:");
            for count in counts {
                let _ = writeln!(text, "  {:<44} {:>6}", count.name, count.addresses);
            }
        }
    }
    text
}
