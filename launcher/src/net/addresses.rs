//! Which addresses a name was answered with, and for how long.
//!
//! Names are those the workload asked for, never the targets of aliases: rules speak of what a program wants to reach.
//! Private addresses are remembered like any other; the policy never lets a rule about names match one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pairs of an address and a name kept; the oldest are forgotten first.
pub(super) const ENTRIES_MAX: usize = 65_536;
/// Names kept of one address: each is tried when a connect is judged.
pub(super) const NAMES_MAX: usize = 256;
/// The least time an answer is valid: programs connect a while after they asked.
const TTL_MIN_SECS: u32 = 30;
/// The most time an answer is valid.
const TTL_MAX_SECS: u32 = 3600;
/// Programs keep addresses somewhat longer than they should.
const GRACE: Duration = Duration::from_secs(60);

/// A name of an address.
#[derive(Debug, Clone)]
struct Entry {
    name: Arc<str>,
    valid_until: Instant,
    /// Its key in the order of answers.
    number: u64,
}

/// The addresses, each with its names.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// In the order of answers, the latest last.
    names: HashMap<IpAddr, Vec<Entry>>,
    /// All pairs by age.
    order: BTreeMap<u64, IpAddr>,
    next: u64,
}

impl Addresses {
    /// Notes that a name was answered with an address; a name already noted becomes the latest.
    pub(super) fn remember(&mut self, address: IpAddr, name: &Arc<str>, ttl_secs: u32, now: Instant) {
        let address = address.to_canonical();
        let ttl = Duration::from_secs(ttl_secs.clamp(TTL_MIN_SECS, TTL_MAX_SECS).into());
        let entry = Entry { name: Arc::clone(name), valid_until: now + ttl + GRACE, number: self.next };
        self.next += 1;
        let names = self.names.entry(address).or_default();
        if let Some(at) = names.iter().position(|entry| entry.name == *name) {
            self.order.remove(&names.remove(at).number);
        } else if names.len() == NAMES_MAX {
            self.order.remove(&names.remove(0).number);
        }
        self.order.insert(entry.number, address);
        names.push(entry);
        if self.order.len() > ENTRIES_MAX {
            self.forget_oldest();
        }
    }

    /// The names of an address whose answers are still valid, the latest first.
    pub(super) fn names(&self, address: IpAddr, now: Instant) -> impl Iterator<Item = &Arc<str>> {
        self.names
            .get(&address.to_canonical())
            .into_iter()
            .flat_map(|names| names.iter().rev())
            .filter(move |entry| now < entry.valid_until)
            .map(|entry| &entry.name)
    }

    fn forget_oldest(&mut self) {
        let Some((number, address)) = self.order.pop_first() else { return };
        if let Some(names) = self.names.get_mut(&address) {
            names.retain(|entry| entry.number != number);
            if names.is_empty() {
                self.names.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn names(addresses: &Addresses, address: IpAddr, now: Instant) -> Vec<&str> {
        addresses.names(address, now).map(|name| &**name).collect()
    }

    #[test]
    fn the_latest_answer_names_an_address_first() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        let (one, two) = (Arc::from("one.example"), Arc::from("two.example"));
        addresses.remember(ADDRESS, &one, 300, now);
        addresses.remember(ADDRESS, &two, 300, now);
        assert_eq!(names(&addresses, ADDRESS, now), ["two.example", "one.example"]);
        addresses.remember(ADDRESS, &one, 300, now);
        assert_eq!(names(&addresses, ADDRESS, now), ["one.example", "two.example"]);
        assert_eq!(addresses.order.len(), 2);
    }

    #[test]
    fn an_answer_is_valid_for_its_time_and_the_grace() {
        let now = Instant::now();
        for (ttl, valid_secs) in [(0, 90), (30, 90), (300, 360), (3600, 3660), (u32::MAX, 3660)] {
            let mut addresses = Addresses::default();
            addresses.remember(ADDRESS, &Arc::from("a.example"), ttl, now);
            let after = |secs| now + Duration::from_secs(secs);
            assert_eq!(names(&addresses, ADDRESS, after(valid_secs - 1)), ["a.example"], "{ttl}");
            assert!(names(&addresses, ADDRESS, after(valid_secs)).is_empty(), "{ttl}");
        }
    }

    #[test]
    fn an_outlived_answer_does_not_hide_a_valid_one() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        addresses.remember(ADDRESS, &Arc::from("long.example"), 3600, now);
        addresses.remember(ADDRESS, &Arc::from("short.example"), 0, now);
        assert_eq!(names(&addresses, ADDRESS, now + Duration::from_secs(100)), ["long.example"]);
    }

    #[test]
    fn the_mapped_form_of_an_address_is_the_same_address() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        addresses.remember("::ffff:192.0.2.1".parse().unwrap(), &Arc::from("a.example"), 60, now);
        assert_eq!(names(&addresses, ADDRESS, now), ["a.example"]);
        assert_eq!(names(&addresses, "::ffff:192.0.2.1".parse().unwrap(), now), ["a.example"]);
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_too_many() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        let name = Arc::from("many.example");
        let nth = |n: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap()));
        for n in 0..ENTRIES_MAX + 10 {
            addresses.remember(nth(n), &name, 60, now);
            // Answered anew all the time, so never among the oldest.
            addresses.remember(nth(0), &name, 60, now);
        }
        assert_eq!(addresses.order.len(), ENTRIES_MAX);
        assert_eq!(addresses.names.len(), ENTRIES_MAX);
        assert!(names(&addresses, nth(1), now).is_empty());
        assert!(names(&addresses, nth(10), now).is_empty());
        assert_eq!(names(&addresses, nth(11), now), ["many.example"]);
        assert_eq!(names(&addresses, nth(0), now), ["many.example"]);
    }

    #[test]
    fn an_address_keeps_its_latest_names() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        for n in 0..NAMES_MAX + 10 {
            addresses.remember(ADDRESS, &Arc::from(format!("{n}.example")), 60, now);
        }
        let kept = names(&addresses, ADDRESS, now);
        assert_eq!((kept.len(), addresses.order.len()), (NAMES_MAX, NAMES_MAX));
        assert_eq!(kept.last(), Some(&"10.example"));
    }
}
