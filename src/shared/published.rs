//! What the updater tells the other processes: numbers and short texts, for RPC and statistics.
//!
//! One writer, the updater.

use super::text::SharedText;
use crate::clock::UnixSeconds;
use crate::memory::{Arena, AtomicU64, Line, Ordering, OutOfMemory, LINE_WORDS};

/// Lines of one text: one word of sequence and length each, the rest is text.
const TEXT_LINES: usize = 5;
/// Longest text in bytes.
pub const TEXT_MAX: usize = SharedText::longest(TEXT_LINES);

/// The numbers on the published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "named as in RPC and statistics")]
pub enum Number {
    Started,
    FeedState,
    FeedLastSuccess,
    FeedNextPoll,
    FeedRequests,
    FeedPages,
    FetchOk,
    FetchErrors,
    RateLimited,
    FeedRefused,
    /// Keep last: how many there are.
    Count,
}

/// The texts on the published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "named as in RPC")]
pub enum Text {
    FeedId,
    FeedLastError,
    FeedWaitingFor,
    TrustLastError,
    StateLastError,
    FirewallError,
    SocketFilterError,
    /// Keep last: how many there are.
    Count,
}

/// A place in the kernel where packets of banned sources are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Place {
    /// The firewall of the host, as the parameter `firewall` says.
    Firewall,
    /// The filter on Kamailio's own sockets.
    SocketFilter,
    /// Keep last: how many there are.
    Count,
}

impl Place {
    /// The text with the latest error of this place.
    pub fn error(self) -> Text {
        match self {
            Place::SocketFilter => Text::SocketFilterError,
            _ => Text::FirewallError,
        }
    }
}

/// What is published of each place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Gauge {
    /// [`State`](crate::firewall::runner::State) as a number.
    State,
    /// Changes that wait.
    Queued,
    /// Failed operations since the start.
    Errors,
    /// Packets dropped.
    Dropped,
    /// Bans in force there.
    Elements,
    /// Bans that belong there.
    Wanted,
    /// See [`Published::alive`].
    Alive,
    /// Keep last: how many there are.
    Count,
}

/// Index of a gauge among the numbers.
fn index(place: Place, gauge: Gauge) -> usize {
    Number::Count as usize + place as usize * Gauge::Count as usize + gauge as usize
}

/// The point in time that a number stands for; 0 stands for none.
pub(super) fn point(number: u64) -> Option<UnixSeconds> {
    (number != 0).then(|| UnixSeconds::saturating(number))
}

/// The published.
#[derive(Clone, Copy)]
pub struct Published {
    numbers: &'static [Line],
    texts: &'static [Line],
}

impl Published {
    /// All zero and empty.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        Ok(Published {
            numbers: arena.lines(
                "the status",
                index(Place::Count, Gauge::State).div_ceil(LINE_WORDS),
            )?,
            texts: arena.lines("the status", Text::Count as usize * TEXT_LINES)?,
        })
    }

    /// A number.
    pub fn number(&self, number: Number) -> u64 {
        self.word(number as usize).load(Ordering::Relaxed)
    }

    /// Sets a number.
    pub fn set_number(&self, number: Number, value: u64) {
        self.word(number as usize).store(value, Ordering::Relaxed);
    }

    /// A number that is a point in time; `None` if none was set.
    pub fn time(&self, number: Number) -> Option<UnixSeconds> {
        point(self.number(number))
    }

    /// Sets a number that is a point in time.
    pub fn set_time(&self, number: Number, time: Option<UnixSeconds>) {
        self.set_number(number, time.map_or(0, |time| time.get().into()));
    }

    /// When it was last known that the bans there are kept up to date, in internal time; `None`: never.
    pub fn alive(&self, place: Place) -> Option<UnixSeconds> {
        point(self.gauge(place, Gauge::Alive))
    }

    /// Sets when that was known.
    pub fn set_alive(&self, place: Place, now: UnixSeconds) {
        self.set_gauge(place, Gauge::Alive, now.get().into());
    }

    /// A number of a place that drops packets.
    pub fn gauge(&self, place: Place, gauge: Gauge) -> u64 {
        self.word(index(place, gauge)).load(Ordering::Relaxed)
    }

    /// Sets a number of a place that drops packets.
    pub fn set_gauge(&self, place: Place, gauge: Gauge, value: u64) {
        self.word(index(place, gauge))
            .store(value, Ordering::Relaxed);
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.numbers[index / LINE_WORDS][index % LINE_WORDS]
    }

    /// A text.
    pub fn text(&self, text: Text) -> String {
        self.lines(text).get()
    }

    /// Sets a text; cut to [`TEXT_MAX`] bytes at a character.
    pub fn set_text(&self, text: Text, value: &str) {
        self.lines(text).set(value);
    }

    fn lines(&self, text: Text) -> SharedText {
        SharedText(&self.texts[text as usize * TEXT_LINES..][..TEXT_LINES])
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::memory::explore::{all, beside, Memory};

    const TEXTS: [&str; 2] = ["aaaa", "bb"];

    /// The one writer replaces a text while it is read. Readers write nothing, so one is enough.
    #[test]
    fn a_text_is_never_mixed() {
        all("published: text", || {
            let published = Published {
                numbers: &[],
                texts: Memory::default().lines("a model", TEXT_LINES).unwrap(),
            };
            published.set_text(Text::FeedId, TEXTS[0]);
            beside(
                [
                    Box::new(move || published.set_text(Text::FeedId, TEXTS[1])),
                    Box::new(move || {
                        let seen = published.text(Text::FeedId);
                        assert!(seen.is_empty() || TEXTS.contains(&&*seen), "{seen}");
                    }),
                ],
                move || assert_eq!(published.text(Text::FeedId), TEXTS[1]),
            );
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn texts_come_back_whole() {
        let published = Published::new(&mut HeapArena).unwrap();
        assert_eq!(published.text(Text::FeedId), "");
        published.set_text(Text::FeedId, "1795300250");
        published.set_text(Text::FeedLastError, &"ü".repeat(TEXT_MAX));
        assert_eq!(published.text(Text::FeedId), "1795300250");
        assert_eq!(
            published.text(Text::FeedLastError),
            "ü".repeat(TEXT_MAX / 2)
        );
        published.set_number(Number::FeedRefused, 7);
        assert_eq!(published.number(Number::FeedRefused), 7);
        let last = (Place::SocketFilter, Gauge::Wanted);
        published.set_gauge(last.0, last.1, 9);
        assert_eq!(published.gauge(last.0, last.1), 9);
        assert_eq!(published.gauge(Place::Firewall, Gauge::Wanted), 0);
    }

    #[test]
    fn a_reader_never_sees_two_texts_mixed() {
        let published = Published::new(&mut HeapArena).unwrap();
        let texts = ["a".repeat(100), "b".repeat(200)];
        published.set_text(Text::FeedLastError, &texts[0]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..20_000).for_each(|n| published.set_text(Text::FeedLastError, &texts[n % 2]))
            });
            for _ in 0..20_000 {
                let seen = published.text(Text::FeedLastError);
                assert!(seen.is_empty() || texts.contains(&seen), "{seen}");
            }
        });
    }
}
