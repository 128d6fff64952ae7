//! Numbers, sizes and times as people read them.

use std::time::Duration;

use millpond::BatchTime;

/// `1,000,000`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 key`, `2 keys`.
pub(crate) fn counted(number: u64, thing: &str, things: &str) -> String {
    format!("{} {}", count(number), if number == 1 { thing } else { things })
}

/// `41 MiB`, `1.3 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return counted(bytes, "byte", "bytes");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    if size < 10.0 { format!("{size:.1} {unit}") } else { format!("{size:.0} {unit}") }
}

/// `143 ms`, `2.4 s`.
pub(crate) fn duration(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// Date and time of a batch: `2024-05-06` and `12:00:14.000`. Both are UTC.
pub(crate) fn date_and_time(time: BatchTime) -> (String, String) {
    let text = time.to_string();
    match text.split_once(' ') {
        Some((date, time)) if date.contains('-') => (date.to_owned(), time.to_owned()),
        _ => (String::new(), text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(counted(1, "key", "keys"), "1 key");
    }

    #[test]
    fn sizes_have_two_or_three_digits() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1,023 bytes"),
            (1024, "1.0 KiB"),
            (43_000_000, "41 MiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_are_split_where_they_have_a_date() {
        let split = date_and_time(BatchTime::from_ms(1_715_000_414_000));
        assert_eq!(split, ("2024-05-06".to_owned(), "13:00:14.000".to_owned()));
        assert_eq!(date_and_time(BatchTime::from_ms(3000)), (String::new(), "3000 ms".to_owned()));
    }
}
