//! Long answers, a page at a time.

use super::{number, text, Arguments, Fault, Fields, Reply};

/// Rows that fit every transport: kamcmd takes 128 KiB and a JSON-RPC datagram 64 KiB, a ban with the longest IPv6
/// prefix and the longest reason takes less than 250 bytes.
const MOST: u64 = 250;
/// Rows if no number is given.
const USUAL: u64 = 100;

/// The page of an answer that was asked for.
pub struct Page {
    limit: u64,
    offset: u64,
}

impl Page {
    /// Reads `[limit] [offset]` from the argument at `index` on.
    ///
    /// # Errors
    /// One of them is no number.
    pub fn asked(arguments: &Arguments, index: usize) -> Result<Self, Fault> {
        let any = 0..=u64::from(u32::MAX);
        Ok(Page {
            limit: arguments.number(index, "limit", USUAL, any.clone())?,
            offset: arguments.number(index + 1, "offset", 0, any)?,
        })
    }

    /// The page of `rows`, sorted by `key`. Its last row says so if more was asked for than an answer carries.
    pub fn of<T, K: Ord>(
        &self,
        rows: &mut [T],
        key: impl Fn(&T) -> K,
        describe: impl Fn(&T) -> Fields,
    ) -> Reply {
        let total = rows.len() as u64;
        let shown = part(
            rows,
            self.offset as usize,
            self.limit.min(MOST) as usize,
            key,
        );
        let mut shown: Vec<Fields> = shown.iter().map(describe).collect();
        let next = self.offset + shown.len() as u64;
        if self.limit > MOST && next < total {
            shown.push(vec![
                text("cut", format!("an answer carries {MOST} entries at most")),
                number("next_offset", next),
                number("total", total),
            ]);
        }
        Reply::List(shown)
    }
}

/// What sorted `rows` would hold from `offset` on, `most` rows, without sorting the others: the process that
/// asks may be a SIP worker, and they may be all the bans there are.
pub fn part<T, K: Ord>(rows: &mut [T], offset: usize, most: usize, key: impl Fn(&T) -> K) -> &[T] {
    if offset >= rows.len() {
        return &[];
    }
    rows.select_nth_unstable_by_key(offset, &key);
    let rows = &mut rows[offset..];
    if most < rows.len() {
        rows.select_nth_unstable_by_key(most, &key);
    }
    let most = most.min(rows.len());
    let shown = &mut rows[..most];
    shown.sort_unstable_by_key(&key);
    shown
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn a_page_is_a_part_of_the_sorted_whole() {
        let shuffled: Vec<u32> = (0..100).map(|i| i * 37 % 100 / 2).collect();
        let mut sorted = shuffled.clone();
        sorted.sort_unstable();
        for offset in [0, 1, 50, 99, 100, 101] {
            for most in [0, 1, 7, 99, 100, 101] {
                let expected: Vec<u32> = sorted.iter().copied().skip(offset).take(most).collect();
                let mut rows = shuffled.clone();
                assert_eq!(part(&mut rows, offset, most, |&row| row), expected);
            }
        }
    }
}
