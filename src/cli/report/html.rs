//! The report as one page that needs nothing else: no script, no font, no request.

use std::fmt::Write;

use super::figures::{DayCount, Figures, Hitter, Network};
use crate::cli::times;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--line:#d8dde4;--page:#f6f7f9;--card:#fff;--bar:#2f6fbb}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--line:#303844;--page:#12161c;--card:#1a2029;--bar:#6aa5ea}}\
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:70rem;margin:0 auto;padding:1.5rem}h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:0 0 .75rem}\
p{margin:.25rem 0 1.25rem;color:var(--soft)}.row{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(14rem,1fr));margin-bottom:1rem}\
main>.pairs{grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr))}\
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.2rem;min-width:0}\
.figure{font-size:1.9rem;font-weight:600;line-height:1.2}.name{color:var(--soft);font-size:.9rem}\
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font:11px system-ui,sans-serif}svg .n{fill:var(--ink)}\
svg rect{fill:var(--bar)}svg line{stroke:var(--line)}table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}\
td{padding:.2rem 0}td:nth-child(2){text-align:right;padding-left:1rem;width:4rem}td:nth-child(3){width:40%;padding-left:1rem}\
i{display:block;height:.6rem;border-radius:.3rem;background:var(--bar)}";

/// Width of the plot in its own units.
const WIDTH: f64 = 480.0;
/// Height of its bars.
const HEIGHT: f64 = 120.0;
/// Dates under the plot.
const MOST_LABELS: usize = 8;

/// The page.
pub fn page(figures: &Figures) -> String {
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\"><title>APIBAN report</title>\
         <style>{STYLE}</style></head><body><main>\n<h1>APIBAN report</h1><p>{}</p>\n",
        times::point(figures.at)
    );
    text.push_str("<div class=\"row\">");
    for (figure, name) in [
        (figures.listed.to_string(), "addresses listed"),
        (
            figures.new_since_yesterday.to_string(),
            "new since yesterday",
        ),
        (
            format!("{:.1} %", figures.top_ten_share),
            "of the list in its ten largest /24 networks",
        ),
        (
            figures.hit_us.addresses.to_string(),
            "of them sent packets to this host",
        ),
    ] {
        let _ = write!(
            text,
            "<div class=\"card\"><div class=\"figure\">{figure}</div><div class=\"name\">{name}</div></div>"
        );
    }
    text.push_str("</div>\n<div class=\"card row\"><section><h2>Listed a day</h2>");
    text.push_str(&plot(&figures.days));
    text.push_str("</section></div>\n<div class=\"row pairs\">");
    for (title, networks) in [
        ("Largest /16 networks now", &figures.networks_16),
        ("Largest /24 networks now", &figures.networks_24),
        ("Most active /16 networks ever", &figures.ever_16),
        ("Most active /24 networks ever", &figures.ever_24),
    ] {
        text.push_str(&table(title, networks.iter().map(row)));
    }
    let packets = |hitter: &Hitter| (hitter.ip.clone(), hitter.packets);
    let hitters = figures.hit_us.top.iter().map(packets);
    if !figures.hit_us.top.is_empty() {
        text.push_str(&table("Packets of listed addresses to this host", hitters));
    }
    for (title, counts) in [
        ("Countries", &figures.countries),
        ("Operators", &figures.operators),
    ] {
        if let Some(counts) = counts {
            let rows = counts
                .iter()
                .map(|count| (count.name.clone(), count.addresses));
            text.push_str(&table(title, rows));
        }
    }
    text.push_str("</div></main></body></html>\n");
    text
}

/// One bar a day.
fn plot(days: &[DayCount]) -> String {
    let most = days.iter().map(|day| day.listed).max().unwrap_or(0).max(1);
    let step = WIDTH / days.len().max(1) as f64;
    let every = days.len().div_ceil(MOST_LABELS).max(1);
    let mut text = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Addresses listed a day\">",
        HEIGHT + 40.0
    );
    for (index, day) in days.iter().enumerate() {
        let height = HEIGHT * day.listed as f64 / most as f64;
        let (left, top) = (step * index as f64, HEIGHT - height + 16.0);
        let middle = left + step / 2.0;
        let _ = write!(
            text,
            "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" rx=\"2\">\
             <title>{}: {}</title></rect>",
            left + step * 0.15,
            step * 0.7,
            day.date,
            day.listed
        );
        if days.len() <= 2 * MOST_LABELS {
            let _ = write!(
                text,
                "<text class=\"n\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>",
                top - 4.0,
                day.listed
            );
        }
        if index % every == 0 {
            // Month and day: the year is in the head of the page.
            let date = day.date.get(5..).unwrap_or(&day.date);
            let _ = write!(
                text,
                "<text text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{date}</text>",
                HEIGHT + 34.0
            );
        }
    }
    let base = HEIGHT + 16.5;
    let _ = write!(
        text,
        "<line x1=\"0\" x2=\"{WIDTH}\" y1=\"{base}\" y2=\"{base}\"/></svg>"
    );
    text
}

fn row(network: &Network) -> (String, u64) {
    (network.network.clone(), network.addresses)
}

/// A table of names and numbers, the largest number first.
fn table(title: &str, rows: impl Iterator<Item = (String, u64)>) -> String {
    let rows: Vec<(String, u64)> = rows.collect();
    let most = rows.first().map_or(1, |(_, number)| (*number).max(1));
    let mut text = format!("<section class=\"card\"><h2>{title}</h2><table>");
    for (name, number) in rows {
        let width = number as f64 * 100.0 / most as f64;
        let _ = write!(
            text,
            "<tr><td>{}</td><td>{number}</td><td><i style=\"width:{width:.1}%\"></i></td></tr>",
            escaped(&name)
        );
    }
    text.push_str("</table></section>\n");
    text
}

/// Names come from databases of others.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
