//! Where a file is cut: ranges of whole records within the limits of a batch, counted.

use std::io::{self, Read};

use super::decode::Framing;

/// Bytes read at once.
const BLOCK: usize = 256 << 10;

/// A stretch of whole records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) records: u64,
}

/// What a batch may still take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    /// A piece ends at the first end of a record that is seen behind so many bytes.
    pub(crate) piece_bytes: u64,
    /// Whether a record larger than `bytes` is taken all the same: else it would never be.
    pub(crate) at_least_one: bool,
}

/// Cuts what stands in `file` from `from` (where `file` is to be read next) up to `size`. Nothing
/// at all if the first record does not fit.
pub(crate) fn cut(
    framing: Framing,
    file: &mut impl Read,
    from: u64,
    size: u64,
    limits: Limits,
) -> io::Result<Vec<Piece>> {
    if limits.records == 0 || (limits.bytes == 0 && !limits.at_least_one) {
        return Ok(Vec::new());
    }
    match framing {
        Framing::Lines { .. } => cut_lines(file, from, size, limits),
        Framing::FixedLength(length) => Ok(cut_fixed(length as u64, from, size, limits)),
    }
}

fn cut_fixed(length: u64, from: u64, size: u64, limits: Limits) -> Vec<Piece> {
    let fitting = (limits.bytes / length).max(u64::from(limits.at_least_one)).min(limits.records);
    let whole = fitting.saturating_mul(length).min(size - from);
    let step = limits.piece_bytes.div_ceil(length).max(1).saturating_mul(length);
    let mut pieces = Vec::new();
    let mut at = from;
    while at < from + whole {
        let to = at.saturating_add(step).min(from + whole);
        // What a file ends with, too short for a record, counts as one: it will be refused.
        pieces.push(Piece { from: at, to, records: (to - at).div_ceil(length) });
        at = to;
    }
    pieces
}

fn cut_lines(file: &mut impl Read, from: u64, size: u64, limits: Limits) -> io::Result<Vec<Piece>> {
    let within = size.min(from.saturating_add(limits.bytes));
    let mut records_left = limits.records;
    let mut block = vec![0; BLOCK.min((size - from) as usize)];
    let mut pieces = Vec::new();
    let mut piece = Piece { from, to: from, records: 0 };
    let mut at = from;
    while at < size {
        if at >= within && (!pieces.is_empty() || piece.records > 0 || !limits.at_least_one) {
            break;
        }
        let end = if at < within { within } else { size };
        let wanted = block.len().min((end - at) as usize);
        let block = &mut block[..wanted];
        file.read_exact(block)?;
        if at < within {
            let ends = memchr::memchr_iter(b'\n', block).count() as u64;
            if ends >= records_left {
                let last = memchr::memchr_iter(b'\n', block).nth(records_left as usize - 1).unwrap_or(0);
                pieces.push(Piece { to: at + last as u64 + 1, records: piece.records + records_left, ..piece });
                return Ok(pieces);
            }
            records_left -= ends;
            if let Some(last) = memchr::memrchr(b'\n', block) {
                piece = Piece { to: at + last as u64 + 1, records: piece.records + ends, ..piece };
                if piece.to - piece.from >= limits.piece_bytes {
                    pieces.push(piece);
                    piece = Piece { from: piece.to, to: piece.to, records: 0 };
                }
            }
        } else if let Some(end) = memchr::memchr(b'\n', block) {
            // The line that is longer than the limit goes whole and alone.
            return Ok(vec![Piece { to: at + end as u64 + 1, records: 1, ..piece }]);
        }
        at += wanted as u64;
    }
    if at == size && piece.to < size {
        // The last line lacks its end.
        piece = Piece { to: size, records: piece.records + 1, ..piece };
    }
    if piece.records > 0 {
        pieces.push(piece);
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: Limits = Limits { bytes: u64::MAX, records: u64::MAX, piece_bytes: u64::MAX, at_least_one: true };

    /// The pieces of a text, as text with their counts.
    fn pieces(text: &str, from: usize, limits: Limits) -> Vec<(&str, u64)> {
        let cut = cut(
            Framing::Lines { limit_bytes: 100 },
            &mut &text.as_bytes()[from..],
            from as u64,
            text.len() as u64,
            limits,
        )
        .unwrap();
        cut.iter().map(|piece| (&text[piece.from as usize..piece.to as usize], piece.records)).collect()
    }

    #[test]
    fn a_text_without_limits_is_one_piece() {
        assert_eq!(pieces("a\nb\n", 0, NO_LIMIT), [("a\nb\n", 2)]);
        assert_eq!(pieces("a\nb", 0, NO_LIMIT), [("a\nb", 2)]);
        assert_eq!(pieces("\n\n", 0, NO_LIMIT), [("\n\n", 2)]);
        assert_eq!(pieces("a\nb\n", 2, NO_LIMIT), [("b\n", 1)]);
        assert_eq!(pieces("a", 0, NO_LIMIT), [("a", 1)]);
        assert_eq!(pieces("", 0, NO_LIMIT), []);
    }

    #[test]
    fn the_limit_on_bytes_ends_at_a_whole_line() {
        let limit = |bytes| Limits { bytes, ..NO_LIMIT };
        assert_eq!(pieces("aa\nbb\ncc\n", 0, limit(6)), [("aa\nbb\n", 2)]);
        assert_eq!(pieces("aa\nbb\ncc\n", 0, limit(8)), [("aa\nbb\n", 2)]);
        assert_eq!(pieces("aa\nbb\ncc", 0, limit(8)), [("aa\nbb\ncc", 3)]);
        assert_eq!(pieces("aaaaaaaaaa\nb\n", 0, limit(3)), [("aaaaaaaaaa\n", 1)]);
        assert_eq!(pieces("aaaaaaaaaa", 0, limit(3)), [("aaaaaaaaaa", 1)]);
        assert_eq!(pieces("aaaaaaaaaa\nb\n", 0, Limits { at_least_one: false, ..limit(3) }), []);
    }

    #[test]
    fn the_limit_on_records_is_exact() {
        let limit = |records| Limits { records, ..NO_LIMIT };
        assert_eq!(pieces("a\nb\nc\n", 0, limit(2)), [("a\nb\n", 2)]);
        assert_eq!(pieces("a\nb\nc", 0, limit(3)), [("a\nb\nc", 3)]);
        assert_eq!(pieces("a\nb\nc", 0, limit(2)), [("a\nb\n", 2)]);
        assert_eq!(pieces("a\nb\nc", 0, limit(0)), []);
    }

    #[test]
    fn every_cut_of_a_long_text_holds_together() {
        // Longer than a block, lines of growing length: pieces must join without a gap and count right.
        let text: String = (0..3000).map(|n| "x".repeat(n % 400) + "\n").collect();
        for piece_bytes in [1, 1000, 100_000, 1 << 20] {
            let limits = Limits { piece_bytes, ..NO_LIMIT };
            let found = pieces(&text, 0, limits);
            assert_eq!(found.iter().map(|(text, _)| *text).collect::<String>(), text);
            assert!(found.iter().all(|(text, records)| text.lines().count() as u64 == *records));
        }
    }

    #[test]
    fn k8_fixed_lengths() {
        let fixed = |size, limits| cut(Framing::FixedLength(4), &mut io::empty(), 0, size, limits).unwrap();
        assert_eq!(fixed(12, NO_LIMIT), [Piece { from: 0, to: 12, records: 3 }]);
        assert_eq!(fixed(14, NO_LIMIT), [Piece { from: 0, to: 14, records: 4 }]);
        assert_eq!(fixed(12, Limits { bytes: 9, ..NO_LIMIT }), [Piece { from: 0, to: 8, records: 2 }]);
        assert_eq!(fixed(12, Limits { bytes: 1, ..NO_LIMIT }), [Piece { from: 0, to: 4, records: 1 }]);
        assert_eq!(fixed(12, Limits { records: 1, ..NO_LIMIT }), [Piece { from: 0, to: 4, records: 1 }]);
        assert_eq!(fixed(8, Limits { piece_bytes: 1, ..NO_LIMIT }).len(), 2);
    }
}
