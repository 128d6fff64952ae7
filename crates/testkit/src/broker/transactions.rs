//! The transactions that a broker knows of, asked for with one request of the Kafka protocol (ListTransactions, version 0): that of
//! Kafka's command-line tools starts a Java machine for a second, and librdkafka has none.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

const LIST_TRANSACTIONS: u16 = 66;
const LIMIT: Duration = Duration::from_secs(30);
/// From one question to the next, while the broker loads what it is asked for.
const REST: Duration = Duration::from_millis(50);
const COORDINATOR_LOAD_IN_PROGRESS: u16 = 14;
/// A longer answer is none.
const ANSWER_LIMIT_BYTES: u32 = 64 << 20;

/// A transaction that the broker knows of and that is neither committed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// The transactional id of its producer.
    pub transactional_id: String,
    /// The id that the broker gave the producer.
    pub producer_id: i64,
    /// `Ongoing`, `PrepareCommit` or `PrepareAbort`.
    pub state: String,
}

pub(crate) fn open_transactions(broker: SocketAddr) -> Result<Vec<OpenTransaction>> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Retry, format!("cannot ask {broker} for its transactions")).because(error)
    };
    let deadline = Instant::now() + LIMIT;
    let all = loop {
        let answer = ask(broker).map_err(failed)?;
        match read(&answer) {
            Some(all) => break all,
            // A coordinator that has just been put in charge again: a busy machine's broker loses its own controller now and then.
            None if error_of(&answer) == Some(COORDINATOR_LOAD_IN_PROGRESS) && Instant::now() < deadline => {
                std::thread::sleep(REST);
            }
            None => {
                let what = format!("cannot read what {broker} says of its transactions: {answer:?}");
                return Err(Error::new(ErrorKind::Failed, what));
            }
        }
    };
    Ok(all.into_iter().filter(|one| matches!(&one.state[..], "Ongoing" | "PrepareCommit" | "PrepareAbort")).collect())
}

fn ask(broker: SocketAddr) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    request.extend(LIST_TRANSACTIONS.to_be_bytes());
    request.extend(0_u16.to_be_bytes()); // version
    request.extend(1_u32.to_be_bytes()); // correlation
    request.extend((-1_i16).to_be_bytes()); // no client id
    request.push(0); // no tagged fields in the header
    request.extend([1, 1, 0]); // no filter of states, none of producers, no tagged fields
    let mut broker = TcpStream::connect_timeout(&broker, LIMIT)?;
    broker.set_read_timeout(Some(LIMIT))?;
    broker.write_all(&(request.len() as u32).to_be_bytes())?;
    broker.write_all(&request)?;
    let mut length = [0; 4];
    broker.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > ANSWER_LIMIT_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an answer of {length} bytes")));
    }
    let mut answer = vec![0; length as usize];
    broker.read_exact(&mut answer)?;
    Ok(answer)
}

/// All transactions in an answer; `None` for an error, or what is no answer.
fn read(answer: &[u8]) -> Option<Vec<OpenTransaction>> {
    let mut bytes = Bytes(answer);
    if bytes.error()? != 0 {
        return None;
    }
    for _ in 1..bytes.varint()? {
        bytes.text()?;
    }
    let mut found = Vec::new();
    for _ in 1..bytes.varint()? {
        let transactional_id = bytes.text()?;
        let producer_id = i64::from_be_bytes(bytes.take(8)?.try_into().ok()?);
        let state = bytes.text()?;
        bytes.tags()?;
        found.push(OpenTransaction { transactional_id, producer_id, state });
    }
    Some(found)
}

/// The error code of an answer.
fn error_of(answer: &[u8]) -> Option<u16> {
    Bytes(answer).error()
}

/// What is left of an answer.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    /// The error code, which stands behind the head.
    fn error(&mut self) -> Option<u16> {
        self.take(4)?; // correlation
        self.tags()?;
        self.take(4)?; // throttled for
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A text whose length is written one too large.
    fn text(&mut self) -> Option<String> {
        let length = self.varint()?.checked_sub(1)?;
        Some(String::from_utf8_lossy(self.take(length as usize)?).into_owned())
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(length as usize)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_transactions_is_read() {
        let mut answer = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 3];
        for (id, producer, state) in [("word count", 4_u8, "Ongoing"), ("b", 5, "CompleteAbort")] {
            answer.push(id.len() as u8 + 1);
            answer.extend(id.as_bytes());
            answer.extend([0, 0, 0, 0, 0, 0, 0, producer]);
            answer.push(state.len() as u8 + 1);
            answer.extend(state.as_bytes());
            answer.push(0);
        }
        answer.push(0);
        let found = read(&answer).expect("an answer");
        assert_eq!(found.len(), 2);
        assert_eq!(
            (&found[0].transactional_id[..], found[0].producer_id, &found[0].state[..]),
            ("word count", 4, "Ongoing")
        );
        assert_eq!(found[1].state, "CompleteAbort");
    }

    #[test]
    fn an_error_and_an_answer_cut_short_are_none() {
        let loading = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 14, 1, 1, 0];
        assert_eq!(read(&loading), None);
        assert_eq!(error_of(&loading), Some(COORDINATOR_LOAD_IN_PROGRESS));
        assert_eq!(read(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 3, 9]), None);
    }
}
