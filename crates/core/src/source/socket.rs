//! Lines of text from a TCP server.

use std::io::{ErrorKind as IoErrorKind, Read};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::receiver::{Codec, Receiver, ReceiverHandle, ReceiverSource};
use super::{FedRecord, Plan, PlanRequest, Replay, Source, SourcePartition, SourceStart};
use crate::error::Result;
use crate::time::BatchTime;

/// Bytes read at once.
const BLOCK: usize = 64 << 10;
/// How much of a line that is too long is kept, to be shown as refused.
const SHOWN: usize = 1024;

/// The lines of UTF-8 text that a TCP server sends.
///
/// Connects to the server when the context starts. A connection that is refused or closed is reported, and tried again
/// after a [delay](SocketSource::restart_delay). A line that is not UTF-8, or too long, is left out and counted, never
/// a stop: there is nobody to ask again.
///
/// Lines count once they are in the log, within a block interval (200 ms); a crash before that loses them, and so does
/// a server that sends while nobody is connected.
#[derive(Debug)]
pub struct SocketSource {
    lines: ReceiverSource<SocketReceiver>,
}

impl SocketSource {
    /// Lines from `address`, `HOST:PORT`.
    pub fn connect(address: impl Into<String>) -> Self {
        let address = address.into();
        let receiver = SocketReceiver {
            address: address.clone(),
            line_limit_bytes: 1 << 20,
            connect_limit: Duration::from_secs(10),
            connection: Arc::default(),
            reader: None,
        };
        SocketSource { lines: ReceiverSource::with_codec(receiver, Codec::lines(), "socket", address) }
    }

    /// How long after a connection was refused or closed the next one is tried; default 2 s.
    pub fn restart_delay(mut self, delay: Duration) -> Self {
        self.lines = self.lines.restart_delay(delay);
        self
    }

    /// A longer line is left out and counted; default 1 MiB.
    pub fn line_limit_bytes(mut self, bytes: usize) -> Self {
        self.lines = self.lines.change_receiver(|receiver| receiver.line_limit_bytes = bytes);
        self
    }

    /// How long a connection may take to come about; default 10 s.
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.lines = self.lines.change_receiver(|receiver| receiver.connect_limit = limit);
        self
    }

    /// How long lines are gathered into a block for the log; default 200 ms.
    pub fn block_interval(mut self, interval: Duration) -> Self {
        self.lines = self.lines.block_interval(interval);
        self
    }

    /// At most so many lines a second; default: no limit. Then the server has to wait.
    ///
    /// # Panics
    /// If `records_per_second` is 0.
    pub fn max_rate(mut self, records_per_second: u64) -> Self {
        self.lines = self.lines.max_rate(records_per_second);
        self
    }
}

impl Source for SocketSource {
    type Item = String;

    fn kind(&self) -> &'static str {
        self.lines.kind()
    }

    fn identity(&self) -> String {
        Source::identity(&self.lines)
    }

    fn replay(&self) -> Replay {
        self.lines.replay()
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        self.lines.start(start)
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        self.lines.plan(request)
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<String>>>> {
        self.lines.read(plan)
    }

    fn release(&mut self, committed: BatchTime) {
        self.lines.release(committed);
    }

    fn stop_receiving(&mut self, limit: Duration) -> Result<()> {
        self.lines.stop_receiving(limit)
    }

    fn has_waiting(&self) -> bool {
        self.lines.has_waiting()
    }

    fn stop(&mut self) {
        self.lines.stop();
    }

    fn feed(&self, records: Vec<FedRecord>) -> Result<Arc<dyn SourcePartition<String>>> {
        self.lines.feed(records)
    }
}

/// Connects and reads on a thread of its own.
#[derive(Debug)]
struct SocketReceiver {
    address: String,
    line_limit_bytes: usize,
    connect_limit: Duration,
    /// The connection there is, for closing it from outside.
    connection: Arc<Mutex<Option<TcpStream>>>,
    reader: Option<JoinHandle<()>>,
}

impl Receiver for SocketReceiver {
    type Item = String;

    fn on_start(&mut self, handle: ReceiverHandle<String>) {
        let (address, limit) = (self.address.clone(), self.connect_limit);
        let connection = Arc::clone(&self.connection);
        let mut lines = Lines::new(self.line_limit_bytes);
        let of_thread = handle.clone();
        let read = move || {
            let outcome = connect(&address, limit).and_then(|stream| {
                let kept = stream.try_clone()?;
                *connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
                if of_thread.is_stopped() {
                    return Ok(());
                }
                receive(stream, &mut lines, &of_thread)
            });
            match outcome {
                Ok(()) => of_thread.restart(format_args!("{address} closed the connection")),
                Err(error) => of_thread.restart(format_args!("{address}: {error}")),
            }
        };
        match thread::Builder::new().name("socket".into()).spawn(read) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) => handle.restart(format_args!("cannot start a thread: {error}")),
        }
    }

    fn on_stop(&mut self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(connection), Some(reader)) = (connection, self.reader.take()) {
            // Wakes the reading thread, which stores what it has; a connection that is closed already is as good. A
            // thread that is still connecting is left alone: it will see that it is no longer wanted.
            let _ = connection.shutdown(Shutdown::Both);
            let _ = reader.join();
        }
    }
}

/// Tries all addresses of a name.
fn connect(address: &str, limit: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(IoErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads lines until the end.
fn receive(mut stream: TcpStream, lines: &mut Lines, handle: &ReceiverHandle<String>) -> std::io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let count = match stream.read(&mut block) {
            Ok(0) => {
                // The last line may lack its end.
                return lines.end(|records| handle.store_raw(records)).map_err(std::io::Error::other);
            }
            Ok(count) => count,
            Err(error) if error.kind() == IoErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        lines.push(&block[..count], |records| handle.store_raw(records)).map_err(std::io::Error::other)?;
    }
}

/// Divides what arrives into lines, holding at most a line of the limit.
#[derive(Debug)]
struct Lines {
    limit_bytes: usize,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// It is longer than the limit: the rest is passed over.
    too_long: bool,
}

impl Lines {
    fn new(limit_bytes: usize) -> Self {
        Lines { limit_bytes, partial: Vec::new(), too_long: false }
    }

    /// More bytes; gives the lines that are complete, with whether each was cut.
    fn push(&mut self, bytes: &[u8], store: impl FnOnce(Vec<(&[u8], bool)>) -> Result<()>) -> Result<()> {
        let Some(end) = memchr::memrchr(b'\n', bytes) else {
            self.keep(bytes);
            return Ok(());
        };
        let (whole, rest) = (&bytes[..end], &bytes[end + 1..]);
        let first_end = memchr::memchr(b'\n', whole).unwrap_or(whole.len());
        self.keep(&whole[..first_end]);
        let mut records = vec![self.fit(&self.partial, self.too_long)];
        if first_end < whole.len() {
            records.extend(whole[first_end + 1..].split(|byte| *byte == b'\n').map(|line| self.fit(line, false)));
        }
        let outcome = store(records);
        self.partial.clear();
        self.too_long = false;
        self.keep(rest);
        outcome
    }

    fn keep(&mut self, bytes: &[u8]) {
        // One more for a carriage return, which does not count.
        let room = (self.limit_bytes + 1).saturating_sub(self.partial.len());
        self.too_long |= bytes.len() > room;
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end(&mut self, store: impl FnOnce(Vec<(&[u8], bool)>) -> Result<()>) -> Result<()> {
        if self.partial.is_empty() {
            return Ok(());
        }
        let outcome = store(vec![self.fit(&self.partial, self.too_long)]);
        self.partial.clear();
        self.too_long = false;
        outcome
    }

    /// A line without its carriage return, or the beginning of one that is too long.
    fn fit<'a>(&self, line: &'a [u8], too_long: bool) -> (&'a [u8], bool) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if too_long || line.len() > self.limit_bytes { (&line[..line.len().min(SHOWN)], true) } else { (line, false) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver as Inbox, channel};

    use super::super::testing::{Collected, ManualClock, PATIENCE, collect, eventually, started_with};
    use super::super::{SourceEvent, SourceEvents};
    use super::*;

    /// A server whose connections come one after the other, and a source of its lines.
    struct World {
        source: SocketSource,
        clock: Arc<ManualClock>,
        events: Inbox<SourceEvent>,
    }

    fn world(source: SocketSource) -> World {
        let clock = Arc::<ManualClock>::default();
        let (sender, events) = channel();
        let source = started_with(source, None, |start| {
            start.clock = Arc::<ManualClock>::clone(&clock);
            start.events = SourceEvents::new(move |event| {
                if matches!(event, SourceEvent::Error(_) | SourceEvent::Fatal(_)) {
                    let _ = sender.send(event);
                }
            });
        });
        World { source, clock, events }
    }

    impl World {
        /// Waits for a report; by then all that came before is stored.
        fn next_error(&self) -> String {
            match self.events.recv_timeout(PATIENCE).unwrap() {
                SourceEvent::Error(error) => error.to_string(),
                other => panic!("{other:?}"),
            }
        }

        fn batch(&mut self, time_ms: u64) -> Collected<String> {
            let time = BatchTime::from_ms(time_ms);
            let request = PlanRequest { time, interval: Duration::from_secs(1), max_records: None };
            let plan = self.source.plan(&request).unwrap();
            let collected = collect(&mut self.source, &plan).unwrap();
            assert_eq!(collected.records.len() as u64 + collected.skipped, plan.records);
            collected
        }
    }

    /// The next connection, or a panic if none comes in time.
    fn accept(listener: &TcpListener) -> TcpStream {
        let listener = listener.try_clone().unwrap();
        let (sender, accepted) = channel();
        thread::spawn(move || drop(sender.send(listener.accept().unwrap().0)));
        accepted.recv_timeout(PATIENCE).unwrap()
    }

    fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    #[test]
    fn k1_the_lines_of_a_socket_come_in_order() {
        let (listener, address) = listen();
        let mut world = world(SocketSource::connect(address));
        let mut server = accept(&listener);
        for line in 1..=5 {
            writeln!(server, "{line}").unwrap();
        }
        drop(server);
        assert!(world.next_error().contains("closed the connection"));
        assert_eq!(world.batch(1000).records, ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn k2_a_socket_without_data_gives_empty_batches() {
        let (listener, address) = listen();
        let mut world = world(SocketSource::connect(address));
        let _server = accept(&listener);
        assert_eq!(world.batch(1000).records, [""; 0]);
        assert!(!world.source.has_waiting());
    }

    #[test]
    fn a_refused_connection_is_told_and_tried_again_after_the_delay() {
        let (listener, address) = listen();
        drop(listener);
        let world = world(SocketSource::connect(address.clone()).restart_delay(Duration::from_secs(3)));
        let told = world.next_error();
        assert!(told.contains(&address) && told.contains("started again in 3000 ms"), "{told}");
        assert!(world.events.try_recv().is_err());
        let listener = TcpListener::bind(&address).unwrap();
        // The delay begins when the receiver has stopped, so the clock moves until the connection is there.
        let (sender, accepted) = channel();
        thread::spawn(move || drop(sender.send(listener.accept().unwrap().0)));
        for second in 1.. {
            world.clock.set_ms(second * 1000);
            if accepted.recv_timeout(Duration::from_millis(20)).is_ok() {
                assert!(second >= 3, "connected after {second} s");
                break;
            }
            assert!(second < 1000, "never connected again");
        }
    }

    #[test]
    fn a_connection_that_breaks_is_made_again_and_no_line_is_mixed_with_another() {
        let (listener, address) = listen();
        let mut world = world(SocketSource::connect(address).restart_delay(Duration::ZERO));
        let mut server = accept(&listener);
        write!(server, "one\ntw").unwrap();
        drop(server);
        assert!(world.next_error().contains("closed the connection"));
        let mut server = accept(&listener);
        write!(server, "three\nfour").unwrap();
        drop(server);
        assert!(world.next_error().contains("closed the connection"));
        assert_eq!(world.batch(1000).records, ["one", "tw", "three", "four"]);
    }

    #[test]
    fn lines_that_are_no_utf8_or_too_long_are_counted_and_never_a_stop() {
        let (listener, address) = listen();
        let mut world = world(SocketSource::connect(address).line_limit_bytes(10));
        let mut server = accept(&listener);
        server.write_all(b"good\r\nb\xFFd\n0123456789\r\n0123456789a\n\n").unwrap();
        server.write_all(&[b'x'; 300_000]).unwrap();
        server.write_all(b"\nlast").unwrap();
        drop(server);
        world.next_error();
        let collected = world.batch(1000);
        assert_eq!(collected.records, ["good", "0123456789", "", "last"]);
        assert_eq!(collected.skipped, 3);
    }

    #[test]
    fn a_graceful_stop_keeps_what_was_read() {
        let (listener, address) = listen();
        let mut world = world(SocketSource::connect(address));
        let mut server = accept(&listener);
        writeln!(server, "a").unwrap();
        eventually("the line is stored", || world.source.has_waiting());
        world.source.stop_receiving(Duration::from_secs(10)).unwrap();
        assert_eq!(world.batch(1000).records, ["a"]);
        assert!(!world.source.has_waiting());
        assert_eq!(world.batch(2000).records, [""; 0]);
    }

    #[test]
    fn fed_records_are_lines() {
        let source = SocketSource::connect("nowhere:1");
        assert_eq!(Collected::of(&*source.feed(vec!["a b".into()]).unwrap()).unwrap().records, ["a b"]);
    }

    #[test]
    fn every_way_to_divide_the_bytes_gives_the_same_lines() {
        let text = b"one\r\ntwo\n\nfour and more\nfive\r";
        let expected: Vec<(&[u8], bool)> =
            vec![(b"one", false), (b"two", false), (b"", false), (b"four and mor", true), (b"five", false)];
        for step in 1..=text.len() {
            let mut lines = Lines::new(11);
            let mut seen: Vec<(Vec<u8>, bool)> = Vec::new();
            let mut store = |records: Vec<(&[u8], bool)>| {
                seen.extend(records.into_iter().map(|(line, cut)| (line.to_vec(), cut)));
                Ok(())
            };
            text.chunks(step).for_each(|chunk| lines.push(chunk, &mut store).unwrap());
            lines.end(&mut store).unwrap();
            let fits = |(seen, cut): &(Vec<u8>, bool), (line, too_long): &(&[u8], bool)| {
                *cut == *too_long && if *cut { seen.starts_with(b"four and") } else { seen == line }
            };
            assert!(seen.len() == 5 && seen.iter().zip(&expected).all(|(a, b)| fits(a, b)), "{step}: {seen:?}");
        }
    }
}
