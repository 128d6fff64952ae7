//! The plain loop that `keyed-count` is compared with: the same records counted in one hash map a thread, nothing durable.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::Failure;
use crate::generated::{mix, uniform_key};

/// Records scattered between two meetings of the threads: their keys stay in the last cache.
const ROUND: u64 = 1 << 18;

/// A hasher of one number.
#[derive(Default)]
struct MixHasher(u64);

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0 ^ u64::from(*byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = mix(n);
    }
}

type Counts = HashMap<u64, u64, BuildHasherDefault<MixHasher>>;

/// Counts `records` records of `keys` keys: each thread makes its share of them, hands each key to the thread that counts it,
/// and counts its own. Gives the time.
pub(crate) fn count(records: u64, keys: u64, threads: u64) -> Result<Duration, Failure> {
    let buckets: Vec<Vec<Mutex<Vec<u64>>>> =
        (0..threads).map(|_| (0..threads).map(|_| Mutex::default()).collect()).collect();
    let gate = Barrier::new(threads as usize);
    let started = Instant::now();
    let counted: u64 = std::thread::scope(|scope| {
        let work = |me: u64| {
            let (gate, buckets) = (&gate, &buckets);
            let mut counts = Counts::default();
            let mut from = 0;
            while from < records {
                let to = records.min(from + ROUND * threads);
                let share = |thread: u64| from + (to - from) * thread / threads;
                let mut mine: Vec<_> =
                    buckets[me as usize].iter().map(|bucket| bucket.lock().expect("no panic")).collect();
                for n in share(me)..share(me + 1) {
                    let key = uniform_key(n, keys);
                    let target = (u128::from(mix(key)) * u128::from(threads)) >> 64;
                    mine[target as usize].push(key);
                }
                drop(mine);
                gate.wait();
                for row in buckets {
                    let mut bucket = row[me as usize].lock().expect("no panic");
                    for key in bucket.drain(..) {
                        *counts.entry(key).or_insert(0) += 1;
                    }
                }
                gate.wait();
                from = to;
            }
            counts.values().sum::<u64>()
        };
        let handles: Vec<_> = (0..threads).map(|me| scope.spawn(move || work(me))).collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).sum()
    });
    let time = started.elapsed();
    if counted != records {
        return Err(format!("the plain loop counted {counted} of {records} records").into());
    }
    Ok(time)
}
