//! d. How long until the whole list protects.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cron::{self, Point};
use crate::options::Options;
use crate::proc::settled_cpu_ns;
use crate::recipe;
use crate::report::Section;
use crate::samples::Samples;
use crate::setup::{self, BANNED};
use apiban_testing::feed_server::{FeedServer, Options as Service};
use apiban_testing::kamailio::{Builder, Kamailio};
use apiban_testing::wait::wait_until;

/// The service's window in seconds, and the requests it allows in one.
const WINDOW: f64 = 120.0;
const REQUESTS: usize = 11;
/// How often cron starts the plain clients.
const CRON: f64 = 240.0;
const KEY: &str = "benchmarkkey";

const TEXT: &str = "\
A service on loopback with pages of 250 and the real limit of 11 requests in 120 seconds. \"apiban, cold\" \
has no state file; \"warm\" has one. The recipe takes one page a tick of 300 s: its ticks are run faster here, \
and the time is multiplied back (the first comes after 300 s). The plain clients are the policies of the published Go clients, run by \
cron every 4 minutes: they walk until a refusal, at which they end without having saved their cursor, and \
begin anew; \"saving\" would save it at each page. Their window and pause are scaled down together, and the \
time is multiplied back.";

/// Runs the part.
pub fn run(options: &Options) -> Section {
    let mut section = Section::new("Time to full protection", TEXT);
    // What is scaled: window and rate alike.
    let scale = options.pick(10.0, 1.0);
    if options.quick {
        section.text.push_str(
            " **In this quick run the service's window is 12 s, and times are multiplied by 10.**",
        );
    }
    let both: Vec<(usize, Vec<Point>)> = std::thread::scope(|scope| {
        let cold = [5_000, 5_001].map(|count| scope.spawn(move || (count, cold(count, scale))));
        cold.into_iter()
            .map(|thread| thread.join().expect("cold start"))
            .collect()
    });
    let (ticks, page_cpu) = recipe_curve(5_001);
    let forgetful = clients(5_001, false);
    let saving = clients(5_001, true);

    let table = section.table("until all addresses are in", "s");
    for (count, curve) in &both {
        let name = format!("apiban, cold, {count} addresses");
        table.row(&name, full_at(curve, *count).into());
    }
    table.row(
        "recipe, 5,001 addresses (extrapolated)",
        full_at(&ticks, 5_001).into(),
    );
    table.row(
        "plain client, 5,001 addresses (scaled)",
        full_at(&forgetful, 5_001).into(),
    );
    table.row(
        "plain client, saving, 5,001 addresses (scaled)",
        full_at(&saving, 5_001).into(),
    );
    let most = forgetful.iter().map(|point| point.count).max().unwrap_or(0);
    section.text.push_str(&format!(
        " \"-\" means never: the plain client that forgets its cursor had at most {most} addresses in five runs."
    ));
    let (count, curve) = &both[0];
    section.target(
        "cold start, 5,000 addresses",
        full_at(curve, *count).into(),
        130.0,
        "s",
    );

    let table = section.table("listed addresses missing at the first packet", "addresses");
    table.row("apiban, warm, 5,001 in the state file", warm(5_001).into());

    let runs = options.runs(2, 7);
    let table = section.table("start of Kamailio, until all processes wait", "ms");
    table.row("without a state file", start_time(runs, None));
    table.row(
        "5,001 listed in the state file",
        start_time(runs, Some(5_001)),
    );
    table.row(
        "100,000 listed in the state file",
        start_time(runs, Some(100_000)),
    );

    let ours: Samples = (0..options.runs(2, 5)).map(|_| our_page_cpu()).collect();
    let table = section.table("a page of 250", "ms of CPU in Kamailio");
    table.row("recipe, in the timer process", page_cpu.into());
    table.row("apiban, in the updater, HTTP included", ours.clone());
    table.compared_with("recipe, in the timer process");
    section.target("one page of 250, CPU in the updater", ours, 1.0, "ms");
    section
}

fn full_at(curve: &[Point], count: usize) -> f64 {
    let full = curve.iter().find(|point| point.count >= count);
    full.map_or(f64::NAN, |point| point.at)
}

fn service(count: usize, rate: Option<(usize, Duration)>) -> FeedServer {
    let server = FeedServer::start(Service {
        rate,
        ..Service::new(KEY)
    })
    .expect("feed server");
    server.list(&(0..count).map(setup::listed).collect::<Vec<_>>());
    server
}

fn module(server: &FeedServer) -> Builder {
    Kamailio::builder()
        .children(1)
        .without_tcp()
        .param("api_key", KEY)
        .param("api_url", server.url())
        .param("trust_self", 0)
}

fn entries(kamailio: &Kamailio) -> usize {
    usize::try_from(kamailio.statistic("apiban", "feed_entries")).unwrap_or(0)
}

/// Our module without a state file; time is that of the unscaled service.
fn cold(count: usize, scale: f64) -> Vec<Point> {
    let window = WINDOW / scale;
    let server = service(count, Some((REQUESTS, Duration::from_secs_f64(window))));
    let begin = Instant::now();
    let kamailio = module(&server)
        .param("rate_limit_window", window as i64)
        .start();
    let mut points = vec![Point { at: 0.0, count: 0 }];
    while points.last().is_some_and(|point| point.count < count) {
        let at = begin.elapsed().as_secs_f64();
        assert!(at < window * 5.0, "only {points:?}:\n{}", kamailio.log());
        points.push(Point {
            at: at * scale,
            count: entries(&kamailio),
        });
        sleep(Duration::from_millis(50));
    }
    assert_eq!(server.refused(), 0, "the module went over the limit");
    points
}

/// Addresses that are missing when a Kamailio with a state file answers its first packet.
fn warm(count: usize) -> f64 {
    let kamailio = Kamailio::builder()
        .children(1)
        .param("trust_self", 0)
        .file("apiban.state", setup::state_file(count, None))
        .request_route("if (apiban_check()) { exit; }")
        .start();
    // No packet has come before this one.
    assert!(kamailio.drops(BANNED), "the first packet was answered");
    (count - entries(&kamailio)) as f64
}

fn start_time(runs: usize, count: Option<usize>) -> Samples {
    let one = || {
        let mut builder = Kamailio::builder()
            .children(1)
            .without_tcp()
            .param("trust_self", 0);
        if let Some(count) = count {
            builder = builder.file("apiban.state", setup::state_file(count, None));
        }
        let begin = Instant::now();
        let kamailio = builder.start();
        let took = begin.elapsed().as_secs_f64() * 1000.0;
        assert_eq!(entries(&kamailio), count.unwrap_or(0));
        took
    };
    (0..runs).map(|_| one()).collect()
}

/// The recipe's curve at its real pace, and its CPU time of one page in ms.
fn recipe_curve(count: usize) -> (Vec<Point>, f64) {
    const TICK_MS: u64 = 250;
    let server = service(count, None);
    let kamailio = recipe::builder(&server.url(), KEY, TICK_MS).start();
    let worker = kamailio.pid_of("RTIMER");
    let pages = || {
        server
            .requests()
            .iter()
            .filter(|one| one.status == 200)
            .count()
    };
    let (cpu_before, pages_before) = (settled_cpu_ns(worker), pages());
    wait_until("the recipe's last page", Duration::from_secs(60), || {
        pages() >= count.div_ceil(250)
    });
    let cpu = settled_cpu_ns(worker) - cpu_before;
    let taken = pages() - pages_before;
    // The first tick comes at once or after one interval; what counts is one page a tick.
    let points = (0..=count.div_ceil(250)).map(|tick| Point {
        at: tick as f64 * recipe::TICK,
        count: (tick * 250).min(count),
    });
    let stats = kamailio
        .jsonrpc("htable.stats", serde_json::json!([]))
        .expect("htable.stats");
    let table = stats
        .as_array()
        .and_then(|all| all.iter().find(|one| one["name"] == "apiban"));
    assert_eq!(table.expect("the table")["all"], count);
    (points.collect(), cpu as f64 / taken as f64 / 1e6)
}

/// The updater's CPU time of one page of new addresses in ms, its share of the requests included.
fn our_page_cpu() -> f64 {
    let server = service(0, None);
    let kamailio = module(&server).param("rate_limit_requests", 1000).start();
    let updater = kamailio.pid_of("APIBAN updater");
    wait_until("the first fetch", Duration::from_secs(10), || {
        !server.requests().is_empty()
    });
    let (before, asked) = (settled_cpu_ns(updater), server.requests().len());
    server.list(&(0..5_000).map(setup::listed).collect::<Vec<_>>());
    kamailio.kamcmd(&["apiban.reload"]).expect("apiban.reload");
    wait_until("all pages", Duration::from_secs(20), || {
        entries(&kamailio) == 5_000
    });
    let cpu = settled_cpu_ns(updater) - before;
    cpu as f64 / (server.requests().len() - asked) as f64 / 1e6
}

/// A cron client's curve at its real pace.
fn clients(count: usize, saves: bool) -> Vec<Point> {
    const SCALE: f64 = 100.0;
    let server = service(
        count,
        Some((REQUESTS, Duration::from_secs_f64(WINDOW / SCALE))),
    );
    let pause = Duration::from_secs_f64(CRON / SCALE);
    let mut points = cron::walk(server.address(), KEY, 5, pause, saves);
    points.iter_mut().for_each(|point| point.at *= SCALE);
    points
}
