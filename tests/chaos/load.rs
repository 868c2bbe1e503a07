//! The load: callers, banned sources, attackers and operators, each on a thread of its own.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::random::Random;
use crate::world::{attacker, caller, World};
use apiban_testing::sip::{Answer, Sip};
use apiban_testing::wait::poll;

/// RFC 3261: the first pause before a request over UDP is sent again.
const T1: Duration = Duration::from_millis(500);
/// Its longest pause, and the end of all attempts.
const T2: Duration = Duration::from_secs(4);
const TIMER_F: Duration = Duration::from_secs(32);
/// Between two actions of one kind: the machine has other work too.
const PACE: Duration = Duration::from_millis(25);

/// One transaction, resent as RFC 3261 has it; the time it took where it was answered with 200.
pub fn call(world: &World, sip: &mut Sip) -> Option<Duration> {
    let begin = Instant::now();
    let id = sip.send("OPTIONS").ok()?;
    let text = sip.text("OPTIONS", &id);
    let mut pause = T1;
    loop {
        match sip.answer_within(&id, pause).ok()? {
            Answer::Status(200) => return Some(begin.elapsed()),
            Answer::Status(_) => return None,
            Answer::Nothing if begin.elapsed() > TIMER_F => return None,
            Answer::Nothing => {}
        }
        world.counts.resent.fetch_add(1, Ordering::Relaxed);
        pause = (pause * 2).min(T2);
        sip.send_again(&text).ok()?;
    }
}

/// Callers over UDP and TCP: each call must be answered.
pub fn legitimate_calls(world: &World, mut random: Random) {
    let mut clients: Vec<Sip> = (0..20).filter_map(|n| world.client(caller(n))).collect();
    while !world.is_stopping() {
        let n = random.below(24);
        let took = match clients.get_mut(n) {
            Some(sip) => call(world, sip),
            // A connection per call: none may be left over in the server.
            None => Sip::tcp(
                caller(n as u32).to_string().as_str(),
                world.kamailio.address(),
            )
            .ok()
            .and_then(|mut sip| call(world, &mut sip)),
        };
        let Some(took) = took else {
            world.fail(format!("the call of {} was not answered", caller(n as u32)));
            continue;
        };
        world.counts.calls.fetch_add(1, Ordering::Relaxed);
        let ms = took.as_millis() as u64;
        world.counts.slowest_ms.fetch_max(ms, Ordering::Relaxed);
        std::thread::sleep(PACE);
    }
}

/// Banned sources: none may be answered.
pub fn banned_sources(world: &World, mut random: Random) {
    let Some(mut control) = world.client(caller(25)) else {
        return world.fail("no socket".into());
    };
    while !world.is_stopping() {
        let banned = world.banned.read().expect("no panic");
        let local = random.below(2) == 0;
        let ip = random.pick(if local { &banned.local } else { &banned.listed });
        if let Some(ip) = ip {
            let mut probe = world.client(*ip).expect("a socket");
            match world.drops(&mut probe, &mut control) {
                Some(true) => drop(world.counts.dropped.fetch_add(1, Ordering::Relaxed)),
                Some(false) => {
                    world.fail(format!("{ip} is banned (local: {local}) and was answered"))
                }
                None => {}
            }
        }
        drop(banned);
        std::thread::sleep(PACE);
    }
}

/// Attackers: answered until they show what they are, then no more.
pub fn attacks(world: &World, _: Random) {
    let Some(mut control) = world.client(caller(26)) else {
        return world.fail("no socket".into());
    };
    for n in 0.. {
        if world.is_stopping() {
            return;
        }
        let ip = attacker(n);
        let mut sip = world.client(ip).expect("a socket");
        if call(world, &mut sip).is_none() {
            world.fail(format!("{ip} is not banned yet and was not answered"));
        }
        // Nobody may empty the table between the ban and the note of it.
        let guard = world.banned.read().expect("no panic");
        let text = sip
            .text("OPTIONS", &format!("attack-{n}"))
            .replace("apiban-test", "friendly-scanner");
        let sent = sip.send_again(&text);
        let took_effect = poll(Duration::from_secs(5), || {
            world
                .drops(&mut sip, &mut control)
                .filter(|dropped| *dropped)
        });
        drop(guard);
        if sent.is_err() || took_effect.is_none() {
            world.fail(format!("{ip} attacked and is not banned"));
        }
        // A table that was emptied meanwhile bans it no longer: only who is still in it counts.
        let mut banned = world.banned.write().expect("no panic");
        if world
            .ask("apiban.check", json!([ip.to_string()]))
            .is_some_and(|c| c["banned"] == 1)
        {
            banned.local.push(ip);
        }
        drop(banned);
        world.counts.attacks.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PACE * 10);
    }
}

/// Operators and monitoring, all at once.
pub fn commands(world: &World, mut random: Random) {
    let mut next_reload = Instant::now();
    while !world.is_stopping() {
        let ip = format!("203.0.113.{}", random.below(256));
        match random.below(9) {
            0 => world.ask("apiban.list", json!(["all", 250])),
            1 => world.ask("apiban.top", json!([100])),
            2 => world.ask("apiban.check", json!([ip])),
            3 => world.ask(
                "apiban.block",
                json!([ip, 1 + random.below(5), "storm\n%s%n"]),
            ),
            4 => world.ask("apiban.unblock", json!([ip])),
            5 => world.ask("apiban.block", json!(["127.0.0.1"])),
            6 => world.ask("apiban.list", json!(["nonsense", "-1"])),
            7 if Instant::now() >= next_reload => {
                next_reload = Instant::now() + Duration::from_secs(3);
                world.ask("apiban.reload", json!([]))
            }
            _ => world.ask("apiban.status", json!([])),
        };
        std::thread::sleep(PACE);
    }
}

/// The same over the other transport.
pub fn kamcmd(world: &World, mut random: Random) {
    let all: [&[&str]; 4] = [
        &["apiban.status"],
        &["apiban.list", "feed", "200", "100"],
        &["apiban.check", "198.18.16.1"],
        &["apiban.block", "nobody"],
    ];
    while !world.is_stopping() {
        let words = all[random.below(all.len())];
        world.counts.commands.fetch_add(1, Ordering::Relaxed);
        if let Err(fault) = world.kamailio.kamcmd(words) {
            world.counts.faults.fetch_add(1, Ordering::Relaxed);
            if fault.code != 400 {
                world.fail(format!("kamcmd {words:?}: {fault}"));
            }
        }
        std::thread::sleep(PACE * 20);
    }
}
