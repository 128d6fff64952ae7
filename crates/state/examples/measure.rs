//! Measures this crate alone: `cargo run --release -p millpond-state --example measure [touched|dirty|visit|large|beyond]`.
//! Prints what was asked for, or all.

use millpond_state::{
    LocalSnapshotStore, Operator, OperatorSpec, Result, Slot, Snapshot, StateStore, StoreOptions, codec, on_this_thread,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PARTITIONS: usize = 16;
const SHARDS: u16 = 128;

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|other| other == name);
    let directory = tempfile::tempdir().expect("a temporary directory");
    if runs("touched") {
        touched(&directory.path().join("touched"))?;
    }
    if runs("dirty") {
        dirty(&directory.path().join("dirty"))?;
    }
    if runs("visit") {
        visit(&directory.path().join("visit"))?;
    }
    if runs("large") {
        large(&directory.path().join("large"))?;
    }
    if runs("beyond") {
        beyond(&directory.path().join("beyond"))?;
    }
    Ok(())
}

/// Ten-byte keys, and where they belong.
struct Keys {
    /// By partition: hash and encoded key.
    by_partition: Vec<Vec<(u64, [u8; 10])>>,
}

impl Keys {
    fn new(numbers: impl Iterator<Item = u64>) -> Self {
        let mut by_partition = vec![Vec::new(); PARTITIONS];
        for n in numbers {
            let key = key(n);
            let hash = codec::key_hash(&key);
            by_partition[codec::partition_of(hash, SHARDS, PARTITIONS)].push((hash, key));
        }
        Keys { by_partition }
    }
}

fn key(n: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[0] = 9;
    key[1..9].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key
}

/// Numbers below `limit` that look random.
fn numbers(count: u64, limit: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x1234_5678_9ABC_DEF1_u64;
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    })
}

/// The same work on two threads.
fn on_two_threads(n: usize, work: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= n {
                        return;
                    }
                    work(job);
                }
            });
        }
    });
}

fn open(directory: &Path, memory: u64) -> Result<(StateStore, Operator<u64>, Arc<LocalSnapshotStore>)> {
    let snapshots = Arc::new(LocalSnapshotStore::open(&directory.join("snapshots"))?);
    let newest = Snapshot::newest(snapshots.clone())?;
    let options =
        StoreOptions { memory_limit_bytes: memory, shards: SHARDS, partitions: PARTITIONS, ..StoreOptions::default() };
    let store = StateStore::open(&directory.join("live"), newest.snapshot.as_ref(), options)?;
    let counts = store.operator(OperatorSpec::<u64>::new("counts", "count"))?;
    Ok((store, counts, snapshots))
}

fn count(counts: &Operator<u64>, keys: &Keys, run: fn(usize, &(dyn Fn(usize) + Sync))) {
    run(PARTITIONS, &|index| {
        let mut partition = counts.partition(index);
        let mut slots: Vec<Slot> = Vec::with_capacity(keys.by_partition[index].len());
        slots.extend(keys.by_partition[index].iter().map(|(hash, key)| partition.slot(*hash, key)));
        partition.load_misses().expect("read");
        for slot in slots {
            *partition.get_mut(slot).get_or_insert(0) += 1;
        }
        partition.commit_task().expect("commit");
    });
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn touched(directory: &Path) -> Result<()> {
    let (_store, counts, _) = open(directory, 4 << 30)?;
    count(&counts, &Keys::new(0..1_000_000), on_this_thread);
    for records in [1_000_000, 5_000_000] {
        let keys = Keys::new(numbers(records, 1_000_000));
        let time = |run: fn(usize, &(dyn Fn(usize) + Sync))| {
            let mut times: Vec<Duration> = (0..5)
                .map(|_| {
                    let start = Instant::now();
                    count(&counts, &keys, run);
                    start.elapsed()
                })
                .collect();
            times.sort();
            times[2].as_secs_f64() * 1e9 / records as f64
        };
        println!(
            "lookup and update of 1 M resident keys, {records} records a batch: {:.1} ns a record on one thread, {:.1} on two",
            time(on_this_thread),
            time(on_two_threads),
        );
    }
    Ok(())
}

fn dirty(directory: &Path) -> Result<()> {
    let (store, counts, snapshots) = open(directory, 4 << 30)?;
    count(&counts, &Keys::new(0..1_000_000), on_two_threads);
    let mut batch = 1;
    store.write_behind(store.freeze(batch, &on_two_threads)?)?;
    store.checkpoint(batch, &*snapshots, Vec::new())?;
    let keys = Keys::new(numbers(1_500_000, 1_000_000));
    for _ in 0..10 {
        count(&counts, &keys, on_two_threads);
        batch += 1;
        checkpoint("777 K of 1 M keys dirty", &store, &snapshots, batch)?;
    }
    drop((store, counts));
    restore(directory, "1 M keys")
}

fn checkpoint(what: &str, store: &StateStore, snapshots: &LocalSnapshotStore, batch: u64) -> Result<()> {
    let start = Instant::now();
    let frozen = store.freeze(batch, &on_two_threads)?;
    let freeze = start.elapsed();
    let rows = frozen.rows();
    let start = Instant::now();
    store.write_behind(frozen)?;
    let write = start.elapsed();
    let info = store.checkpoint(batch, snapshots, Vec::new())?;
    println!(
        "{what} ({rows}): freeze {:.1} ms, write behind {:.1} ms, checkpoint {:.1} ms (link {:.1}), {} of {} KiB new in {} of {} files",
        ms(freeze),
        ms(write),
        ms(info.time),
        ms(info.link_time),
        info.new_bytes >> 10,
        info.bytes >> 10,
        info.new_files,
        info.files,
    );
    Ok(())
}

fn restore(directory: &Path, what: &str) -> Result<()> {
    for _ in 0..3 {
        let start = Instant::now();
        let (store, counts, _) = open(directory, 4 << 30)?;
        println!("restore {what}: {:.1} ms, {} keys", ms(start.elapsed()), counts.keys());
        drop((store, counts));
    }
    Ok(())
}

fn visit(directory: &Path) -> Result<()> {
    let (store, counts, _) = open(directory, 4 << 30)?;
    count(&counts, &Keys::new(0..1_000_000), on_two_threads);
    store.write_behind(store.freeze(1, &on_two_threads)?)?;
    let touched = Keys::new(numbers(10_000, 1_000_000));
    for _ in 0..5 {
        let start = Instant::now();
        on_two_threads(PARTITIONS, &|index| {
            let mut partition = counts.partition(index);
            let mut news = std::collections::HashMap::new();
            for (hash, key) in &touched.by_partition[index] {
                *news.entry(partition.slot(*hash, key)).or_insert(0) += 1;
            }
            partition.load_misses().expect("read");
            partition
                .visit_all(|visit| {
                    let more = visit.slot().and_then(|slot| news.get(&slot)).copied().unwrap_or(0);
                    let value = visit.take().unwrap_or(0) + more;
                    visit.put(Some(value));
                    Ok::<_, millpond_state::Error>(())
                })
                .expect("visit");
            partition.commit_task().expect("commit");
        });
        println!("visit of 1 M resident keys, 10 K with news, two threads: {:.1} ms", ms(start.elapsed()));
    }
    println!("memory {} MiB", store.memory_bytes() >> 20);
    Ok(())
}

/// 10 M keys. The value is a counter: the state is 10 M times 10 + 8 bytes, not the 1 GiB of the bench.
fn large(directory: &Path) -> Result<()> {
    const KEYS: u64 = 10_000_000;
    let (store, counts, snapshots) = open(directory, 4 << 30)?;
    let start = Instant::now();
    let mut batch = 0;
    for part in 0..10 {
        count(&counts, &Keys::new(part * KEYS / 10..(part + 1) * KEYS / 10), on_two_threads);
        batch += 1;
        store.write_behind(store.freeze(batch, &on_two_threads)?)?;
        store.checkpoint(batch, &*snapshots, Vec::new())?;
    }
    println!("10 M keys made in {:.1} s, memory {} MiB", start.elapsed().as_secs_f64(), store.memory_bytes() >> 20);
    store.settle()?;
    let mut times = Vec::new();
    let mut new_bytes = Vec::new();
    let mut state = 1;
    for _ in 0..100 {
        state += 7919;
        count(&counts, &Keys::new(numbers(10_000, KEYS).map(|n| (n + state) % KEYS)), on_two_threads);
        batch += 1;
        let start = Instant::now();
        let frozen = store.freeze(batch, &on_two_threads)?;
        let freeze = start.elapsed();
        store.write_behind(frozen)?;
        let write = start.elapsed() - freeze;
        let info = store.checkpoint(batch, &*snapshots, Vec::new())?;
        times.push(start.elapsed());
        if start.elapsed() > Duration::from_millis(150) {
            println!(
                "  a slow one: freeze {:.1} ms, write behind {:.1} ms, link {:.1} ms, checkpoint {:.1} ms, {} new files of {} KiB",
                ms(freeze),
                ms(write),
                ms(info.link_time),
                ms(info.time),
                info.new_files,
                info.new_bytes >> 10
            );
        }
        new_bytes.push(info.new_bytes);
    }
    times.sort();
    new_bytes.sort();
    println!(
        "10 K of 10 M keys dirty, 100 times freeze, write behind, checkpoint: 50 % {:.1} ms, 99 % {:.1} ms, max {:.1} ms; new bytes 50 % {} KiB, max {} KiB",
        ms(times[50]),
        ms(times[98]),
        ms(times[99]),
        new_bytes[50] >> 10,
        new_bytes[99] >> 10,
    );
    checkpoint("10 K of 10 M keys dirty, last", &store, &snapshots, batch + 1)?;
    drop((store, counts));
    restore(directory, "10 M keys")
}

/// State of 20 times the memory limit: 5 M keys with texts of 100 bytes, a limit of 64 MiB.
fn beyond(directory: &Path) -> Result<()> {
    const KEYS: u64 = 5_000_000;
    type Value = (u64, String);
    let options = StoreOptions {
        memory_limit_bytes: 64 << 20,
        shards: SHARDS,
        partitions: PARTITIONS,
        block_cache_bytes: 16 << 20,
        ..StoreOptions::default()
    };
    let snapshots = Arc::new(LocalSnapshotStore::open(&directory.join("snapshots"))?);
    let open = || -> Result<(StateStore, Operator<Value>)> {
        let start = Instant::now();
        let newest = Snapshot::newest(snapshots.clone())?;
        let store = StateStore::open(&directory.join("live"), newest.snapshot.as_ref(), options.clone())?;
        let texts = store.operator(OperatorSpec::<Value>::new("texts", "text"))?;
        println!("opened {} keys in {:.1} ms", texts.keys(), ms(start.elapsed()));
        Ok((store, texts))
    };
    let (store, texts) = open()?;
    let most = AtomicUsize::new(0);
    let end = |store: &StateStore, batch: u64| -> Result<()> {
        let frozen = store.freeze(batch, &on_two_threads)?;
        most.fetch_max(store.memory_bytes() as usize, Ordering::Relaxed);
        store.write_behind(frozen)?;
        store.checkpoint(batch, &*snapshots, Vec::new())?;
        store.evict();
        Ok(())
    };
    let touch = |texts: &Operator<Value>, keys: &Keys| {
        on_two_threads(PARTITIONS, &|index| {
            let mut partition = texts.partition(index);
            let slots: Vec<Slot> =
                keys.by_partition[index].iter().map(|(hash, key)| partition.slot(*hash, key)).collect();
            partition.load_misses().expect("read");
            for slot in slots {
                partition.get_mut(slot).get_or_insert_with(|| (0, format!("{:0>100}", slot.index() * 7919))).0 += 1;
            }
            partition.commit_task().expect("commit");
        });
    };
    let start = Instant::now();
    let mut batch = 0;
    for first in (0..KEYS).step_by(100_000) {
        touch(&texts, &Keys::new(first..first + 100_000));
        batch += 1;
        end(&store, batch)?;
    }
    println!(
        "{KEYS} keys made in {:.1} s, most memory by our count {} MiB",
        start.elapsed().as_secs_f64(),
        most.load(Ordering::Relaxed) >> 20
    );
    drop((store, texts));
    let (store, texts) = open()?;
    for _ in 0..3 {
        let keys = Keys::new(numbers(100_000, KEYS));
        let start = Instant::now();
        touch(&texts, &keys);
        let took = start.elapsed();
        batch += 1;
        end(&store, batch)?;
        println!("100 K random keys: {:.1} ms, with checkpoint {:.1} ms", ms(took), ms(start.elapsed()));
    }
    for change in [false, true] {
        let start = Instant::now();
        let visited = AtomicUsize::new(0);
        on_two_threads(PARTITIONS, &|index| {
            let mut partition = texts.partition(index);
            let mut count = 0;
            partition
                .visit_all(|visit| {
                    count += 1;
                    let mut value = visit.take();
                    if let (Some(value), true) = (&mut value, change) {
                        value.0 += 1;
                    }
                    visit.put(value);
                    Ok::<_, millpond_state::Error>(())
                })
                .expect("visit");
            partition.commit_task().expect("commit");
            visited.fetch_add(count, Ordering::Relaxed);
        });
        let took = start.elapsed();
        batch += 1;
        end(&store, batch)?;
        println!(
            "visit of {} keys, {}: {:.1} s, with checkpoint {:.1} s",
            visited.load(Ordering::Relaxed),
            if change { "all changed" } else { "none changed" },
            took.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: unknown");
    println!("most memory by our count {} MiB of 64; of the process: {resident}", most.load(Ordering::Relaxed) >> 20);
    Ok(())
}
