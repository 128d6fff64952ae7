//! The bytes on docs/formats.md are those that the code writes; see the file of this name in `millpond-core`.

use crate::position::{Position, TopicId};
use crate::sink::remembered::Remembered;
use crate::source::content::Place;
use crate::source::ranges::{Range, encode_ranges};

const POSITION: &str = "\
01                                               # version
01                                               # reached
07 00 00 00 00 00 00 00                          # hash of the cluster id
03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03  # topic id
e8 03 00 00 00 00 00 00                          # next offset";

const RANGES: &str = "\
01                                               # version
01 00 00 00                                      # one range
02 00 00 00                                      # the third position of the plan
e8 03 00 00 00 00 00 00                          # start
f4 03 00 00 00 00 00 00                          # end
0a 00 00 00 00 00 00 00                          # records
00 00 00 00                                      # blocks";

const PLACE: &str = "\
07 00 00 00 6c 69 6e 65 73 2f 32                 # partition
de 03 00 00 00 00 00 00                          # from
e0 03 00 00 00 00 00 00                          # first record
01 01 07 00 00 00 00 00 00 00 03 03 03 03 03 03  # position after it
03 03 03 03 03 03 03 03 03 03 e8 03 00 00 00 00
00 00";

const REMEMBERED: &str = "\
01                                               # version
16 00 00 00 4d 6b 55 33 4f 45 56 42 4e 54 63 77  # cluster id
4e 54 4a 45 4e 44 4d 32 51 6b
01 00 00 00                                      # one transactional id
0a 00 00 00 77 6f 72 64 2d 63 6f 75 6e 74        # the id";

/// What `written` should be: bytes in hex, a comment behind `#` in each line. The page has the same example.
fn check(what: &str, written: &[u8], example: &str) {
    let page = include_str!("../../../docs/formats.md");
    assert!(page.contains(example), "docs/formats.md has another example of {what}");
    let hex = |line: &str| line.split('#').next().unwrap_or_default().replace(' ', "");
    let expected: String = example.lines().map(hex).collect();
    let written: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, expected, "{what}");
}

#[test]
fn the_bytes_are_those_of_the_page() {
    let position = Position { cluster: 7, topic_id: TopicId([3; 16]), next: 1000, reached: true };
    check("a position", &position.encode(), POSITION);
    let range = Range { index: 2, start: 1000, end: 1012, records: 10, blocks: 0 };
    check("ranges", &encode_ranges(&[range]), RANGES);
    let place = Place { topic: "lines".into(), partition: 2, from: 990, first: 992, after: position };
    check("the place of a block", &place.encode(), PLACE);
    let mut remembered = Remembered::default();
    remembered.add("MkU3OEVBNTcwNTJENDM2Qk", "word-count");
    check("what a sink remembers", &remembered.encode(), REMEMBERED);
}
