//! The bytes on docs/formats.md are those that the code writes. A layout that changes fails here: it wants a version step, code
//! that reads the old one too, and a new example on the page.

use super::manifest::{Manifest, SinkState, SourceState};
use crate::log::{BatchPlan, Block, LogEntry, SourcePlan};
use crate::sink::{Cursor, FileSink, Records, Shared, Sink, SinkStart};
use crate::source::{BlockId, PartitionPosition, Plan};
use crate::stream::Fingerprint;
use crate::time::BatchTime;

const BLOCK: &str = "\
01 00 00 00 73                                   # source
02 00 00 00 00 00 00 00                          # records
01 00 00 00 05                                   # the giver's position
61 62                                            # payload";

const PLAN: &str = "\
e8 03 00 00 00 00 00 00                          # first batch
b8 0b 00 00 00 00 00 00                          # last batch
01 00 00 00                                      # one source
01 00 00 00 73                                   # its name
03 00 00 00 00 00 00 00                          # records
02 00 00 00 01 02                                # how to read them
01 00 00 00                                      # one block
07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07
01 00 00 00                                      # one position
03 00 00 00 74 2f 30                             # its partition
01 00 00 00 09                                   # its position
01 00 00 00                                      # a watermark
f4 01 00 00 00 00 00 00                          # 500 ms
4d 00 00 00 00 00 00 00                          # chain";

const RUN: &str = "\
03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03  # the run id";

const SINK: &str = "\
03 00 00 00 6f 75 74                             # the name of the sink";

const CURSOR: &str = "\
4d 50 43 55                                      # magic
01                                               # version
01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01  # deployment
02 02 02 02 02 02 02 02 02 02 02 02 02 02 02 02  # run
b8 0b 00 00 00 00 00 00                          # batch
04 00 00 00 00 00 00 00                          # chain of plans
05 00 00 00 00 00 00 00                          # chain of digests
06 00 00 00 00 00 00 00                          # records
94 81 07 9a                                      # CRC-32 of all before";

const FILE_CURSOR: &str = "\
4d 50 46 53                                      # magic
01                                               # version
49 00 00 00                                      # length of the cursor
4d 50 43 55 01 01 01 01 01 01 01 01 01 01 01 01  # the cursor
01 01 01 01 01 02 02 02 02 02 02 02 02 02 02 02
02 02 02 02 02 b8 0b 00 00 00 00 00 00 04 00 00
00 00 00 00 00 05 00 00 00 00 00 00 00 06 00 00
00 00 00 00 00 94 81 07 9a
13 00 00 00                                      # length of the name
62 61 74 63 68 2d 30 30 30 30 30 30 30 30 30 33  # the staged directory
30 30 30
e1 1c d7 a0                                      # CRC-32 of all before";

const MANIFEST: &str = "\
02 00 00 00                                      # version
03 00 00 00 61 70 70                             # application
01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01  # deployment
b8 0b 00 00 00 00 00 00                          # batch
e8 03 00 00 00 00 00 00                          # zero time
f4 01 00 00 00 00 00 00                          # interval
01 00 00 00                                      # one part in the fingerprint
01 00 00 00 61                                   # its name
0c 00 00 00 71 75 65 75 65 20 73 6f 75 72 63 65  # what it is
07 00 00 00 00 00 00 00                          # chain of plans
09 09 09 09 09 09 09 09 09 09 09 09 09 09 09 09  # place in the log
01 00 00 00                                      # one run
04 04 04 04 04 04 04 04 04 04 04 04 04 04 04 04
01 00 00 00                                      # one sink
03 00 00 00 6f 75 74                             # its name
03 00 00 00 00 00 00 00                          # its chain of digests
01                                               # introduced
02 00 00 00 01 02                                # its own words
02 00 00 00                                      # two sources
01 00 00 00 61                                   # the first
01                                               # has positions
01 00 00 00                                      # one
03 00 00 00 74 2f 30                             # partition
01 00 00 00 09                                   # position
01 00 00 00 62                                   # the second
00 00 00 00 00                                   # has none yet
01 00 00 00                                      # one accumulator
05 00 00 00 62 6c 61 6e 6b                       # its name
fe ff ff ff ff ff ff ff                          # its value, -2";

/// What `written` should be: bytes in hex, a comment behind `#` in each line. The page has the same example.
fn check(what: &str, written: &[u8], example: &str) {
    let page = include_str!("../../../../docs/formats.md");
    assert!(page.contains(example), "docs/formats.md has another example of {what}");
    let hex = |line: &str| line.split('#').next().unwrap_or_default().replace(' ', "");
    let expected: String = example.lines().map(hex).collect();
    let written: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, expected, "{what}");
}

fn position() -> PartitionPosition {
    PartitionPosition { partition: "t/0".into(), position: vec![9] }
}

fn plan() -> BatchPlan {
    let plan = Plan {
        read: vec![1, 2],
        blocks: vec![BlockId([7; 16])],
        positions: vec![position()],
        records: 3,
        watermark_ms: Some(500),
    };
    BatchPlan {
        first: BatchTime::from_ms(1000),
        last: BatchTime::from_ms(3000),
        sources: vec![SourcePlan { source: "s".into(), plan }],
        chain: 77,
    }
}

fn cursor() -> Cursor {
    Cursor { deployment: [1; 16], run: [2; 16], batch: BatchTime::from_ms(3000), plans: 4, digest: 5, records: 6 }
}

#[test]
fn the_bytes_are_those_of_the_page() {
    let block = Block { source: "s".into(), records: 2, position: vec![5], payload: b"ab".to_vec() };
    for (what, entry, kind, example) in [
        ("a block", LogEntry::Block(block), 1, BLOCK),
        ("a plan", LogEntry::Plan(plan()), 2, PLAN),
        ("a run", LogEntry::Run([3; 16]), 3, RUN),
        ("the introduction of a sink", LogEntry::SinkIntroduced("out".into()), 4, SINK),
    ] {
        assert_eq!(entry.kind(), kind, "the kind of {what}");
        check(what, &entry.encode(), example);
    }
    check("a cursor", &cursor().encode(), CURSOR);
    let manifest = Manifest {
        application: "app".into(),
        deployment: [1; 16],
        batch: BatchTime::from_ms(3000),
        zero: BatchTime::from_ms(1000),
        interval_ms: 500,
        fingerprint: Fingerprint([("a".into(), "queue source".into())].into()),
        plans: 7,
        log: BlockId([9; 16]),
        runs: vec![[4; 16]],
        sinks: vec![SinkState { name: "out".into(), digest: 3, introduced: true, remembered: vec![1, 2] }],
        sources: vec![
            SourceState { name: "a".into(), positions: Some(vec![position()]) },
            SourceState { name: "b".into(), positions: None },
        ],
        accumulators: [("blank".into(), -2)].into(),
    };
    check("the engine's section", &manifest.encode(), MANIFEST);
}

#[test]
fn the_file_sinks_cursor_is_that_of_the_page() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut sink = FileSink::text(place.path());
    let start = SinkStart {
        name: "out".into(),
        application: "app".into(),
        deployment: [1; 16],
        run: [2; 16],
        remembered: Vec::new(),
        shared: std::sync::Arc::new(Shared::default()),
    };
    sink.fence(&start).expect("an empty directory");
    sink.begin(BatchTime::from_ms(3000), &[]).expect("a begin");
    let mut records = Records::new();
    records.push(Some(b"a"), Some(b"1"));
    sink.write(records).expect("a write");
    sink.prepare(&cursor()).expect("a prepare");
    sink.commit().expect("a commit");
    let written = std::fs::read(place.path().join("_millpond/cursor")).expect("the cursor file");
    check("the file sink's cursor", &written, FILE_CURSOR);
}

// As computed from the page by another implementation of XXH3.
const SUM: u64 = 2_677_724_350_410_798_022;
const DIGEST_CHAIN: u64 = 12_431_557_541_364_632_571;
const PLAN_CHAIN: u64 = 16_647_779_191_468_116_334;

/// A hash that changes would make every cursor that is out there a false alarm.
#[test]
fn the_hashes_are_those_of_released_cursors() {
    let mut records = Records::new();
    records.push(Some(b"a"), Some(b"1"));
    records.push(None, None);
    records.record().key("k").value("v").header("h", "x").null_header("n").end();
    let digest = records.digest();
    assert_eq!((digest.sum, digest.count), (SUM, 3));
    assert_eq!(digest.chain(5, BatchTime::from_ms(3000)), DIGEST_CHAIN);
    assert_eq!(plan().chain_from(5), PLAN_CHAIN);
}
